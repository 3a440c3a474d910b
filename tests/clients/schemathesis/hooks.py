"""What the runs of schemathesis over walhook's API need beside its own checks.

WALHOOK_CONTRACT_RECEIVER is where every URL in a document is turned to, so that nothing leaves the machine.
WALHOOK_CONTRACT_KEY is the key of the run, and WALHOOK_CONTRACT_SCOPE what it may do: "webhook:read", "webhook:write" or
"admin"; both are empty where there is none.
"""

import os
import re

import schemathesis

RECEIVER = os.environ["WALHOOK_CONTRACT_RECEIVER"]
KEY = os.environ["WALHOOK_CONTRACT_KEY"]
SCOPE = os.environ["WALHOOK_CONTRACT_SCOPE"]


def turned(value):
    """A document whose URLs lead to the receiver of the test."""
    if isinstance(value, dict):
        return {key: turned(one) for key, one in value.items()}
    if isinstance(value, list):
        return [turned(one) for one in value]
    if isinstance(value, str) and re.match(r"\s*https?:", value, re.IGNORECASE):
        return RECEIVER
    return value


def ends(query):
    """A stream's parameters, which end it within a second where they are such that it would begin."""
    query = dict(query or {})
    seconds = str(query.get("seconds", 1))
    if seconds.isdecimal() and 1 <= int(seconds) <= 86400:
        query["seconds"] = 1
    return query


@schemathesis.hook
def before_call(ctx, case, kwargs):
    if case.path == "/live":
        case.query = ends(case.query)
    case.body = turned(case.body)
    # Keys that are made up would have walhook look at none from this address for a while.
    if case.headers and case.headers.get("Authorization") != f"Bearer {KEY}":
        case.headers.pop("Authorization", None)


def needed(operation):
    """The scope that an operation says it needs."""
    raw = operation.definition.raw
    told = f"{raw.get('summary', '')} {raw.get('description', '')}"
    found = re.search(r"Needs\s+(webhook:read|webhook:write|admin)\b", told)
    assert found, f"{operation.label} does not say which scope it needs"
    return found.group(1)


@schemathesis.check
def only_with_rights(ctx, response, case):
    """Whoever lacks the right is refused whatever they send; whoever has it is never told that they lack it."""
    status = response.status_code
    # Some requests leave the key out on purpose, or bring another.
    sent = response.request.headers.get("Authorization")
    scope = SCOPE if KEY and sent == f"Bearer {KEY}" else ""
    if case.method.lower() not in case.operation.schema.raw_schema["paths"][case.operation.path]:
        assert status in (405, 401), f"{case.method} is not described, and answered {status}"
    elif scope == "":
        assert status == 401, f"without a key: {status}"
    elif scope in ("admin", needed(case.operation)):
        assert status not in (401, 403), f"with the scope {scope}: {status}"
    else:
        assert status == 403, f"with the scope {scope} where {needed(case.operation)} is needed: {status}"
