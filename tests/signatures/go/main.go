// Verifies one request with the public standard-webhooks library for Go.
//
// Reads {"secret", "headers", "body" (base64), "scheme" ("standard" | "hex")} as JSON from standard input. Exits 0
// when the signature verifies and 1 when it does not. "hex" is the check people write by hand.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

type request struct {
	Secret  string            `json:"secret"`
	Headers map[string]string `json:"headers"`
	Body    []byte            `json:"body"`
	Scheme  string            `json:"scheme"`
}

func verify(given request) error {
	headers := http.Header{}
	for name, value := range given.Headers {
		headers.Set(name, value)
	}
	if given.Scheme == "hex" {
		mac := hmac.New(sha256.New, []byte(given.Secret))
		mac.Write(given.Body)
		expected := "sha256=" + hex.EncodeToString(mac.Sum(nil))
		if !hmac.Equal([]byte(expected), []byte(headers.Get("x-webhook-signature"))) {
			return fmt.Errorf("x-webhook-signature does not match")
		}
		return nil
	}
	// The library takes text as base64; a secret without the prefix is its own bytes.
	webhook, err := standardwebhooks.NewWebhookRaw([]byte(given.Secret))
	if strings.HasPrefix(given.Secret, "whsec_") {
		webhook, err = standardwebhooks.NewWebhook(given.Secret)
	}
	if err != nil {
		return err
	}
	return webhook.Verify(given.Body, headers)
}

func main() {
	var given request
	err := json.NewDecoder(os.Stdin).Decode(&given)
	if err == nil {
		err = verify(given)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
