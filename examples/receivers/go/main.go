// Receives webhooks and verifies them with the Standard Webhooks library.
//
//	WALHOOK_SECRET=whsec_… go run .
package main

import (
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

func newWebhook(secret string) (*standardwebhooks.Webhook, error) {
	if strings.HasPrefix(secret, "whsec_") {
		return standardwebhooks.NewWebhook(secret)
	}
	return standardwebhooks.NewWebhookRaw([]byte(secret))
}

func main() {
	webhook, err := newWebhook(os.Getenv("WALHOOK_SECRET"))
	if err != nil {
		log.Fatal(err)
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "9000"
	}
	var seen sync.Map // in production: a table with a unique key

	http.HandleFunc("/", func(response http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(response, request.Body, 2<<20))
		if err != nil {
			http.Error(response, "unreadable body", http.StatusBadRequest)
			return
		}
		if err := webhook.Verify(body, request.Header); err != nil {
			log.Print("refused: ", err)
			http.Error(response, "bad signature", http.StatusUnauthorized)
			return
		}
		if _, again := seen.LoadOrStore(request.Header.Get("webhook-id"), true); !again {
			log.Printf("received: %s %s", request.Header.Get("x-webhook-event"), body)
		}
		response.WriteHeader(http.StatusNoContent)
	})
	log.Printf("listening on http://localhost:%s", port)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, nil))
}
