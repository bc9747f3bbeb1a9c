package camserve

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	secretPrefix = "whsec_"
	secretBytes  = 32
	tolerance    = 300 * time.Second
)

// WebhookEvent is an event that is authentic. ID is the same in every attempt at it: expect it more than once.
type WebhookEvent struct {
	ID             string         `json:"-"`
	Event          string         `json:"event"`
	JobID          string         `json:"job_id"`
	Status         string         `json:"status"`
	ItemsSucceeded int            `json:"items_succeeded"`
	ItemsFailed    int            `json:"items_failed"`
	ResultsURL     string         `json:"results_url"`
	Metadata       map[string]any `json:"metadata"`
}

// VerifyWebhook returns the event of a POST whose Standard Webhooks signature fits one of the secrets (`whsec_…`).
//
// body is the raw body, before anything parsed it. It fails with an *Error: signature.invalid for an event that is
// signed with none of the secrets, signature.expired for one whose time is further from now than 300 s; and with
// another error for a secret that is none.
func VerifyWebhook(header http.Header, body []byte, secrets ...string) (*WebhookEvent, error) {
	return verifyWebhook(time.Now(), header, body, secrets)
}

func verifyWebhook(now time.Time, header http.Header, body []byte, secrets []string) (*WebhookEvent, error) {
	id, sent := header.Get("webhook-id"), header.Get("webhook-timestamp")
	signed := append([]byte(id+"."+sent+"."), body...)
	authentic := false
	for _, secret := range secrets {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, secretPrefix))
		if err != nil || len(key) != secretBytes || !strings.HasPrefix(secret, secretPrefix) {
			return nil, errors.New("camserve: a secret is whsec_ and the base64 of 32 bytes")
		}
		code := hmac.New(sha256.New, key)
		code.Write(signed)
		expected := "v1," + base64.StdEncoding.EncodeToString(code.Sum(nil))
		for _, offered := range strings.Fields(header.Get("webhook-signature")) {
			authentic = hmac.Equal([]byte(offered), []byte(expected)) || authentic
		}
	}
	if !authentic {
		return nil, &Error{Code: "signature.invalid", Message: "The event is not signed with the secret.", Status: 403}
	}
	// Only now: what is signed is what the service wrote.
	seconds, err := strconv.ParseInt(sent, 10, 64)
	if age := now.Sub(time.Unix(seconds, 0)).Abs(); err != nil || age > tolerance {
		return nil, &Error{Code: "signature.expired", Message: "The event is too old, or this clock is off.", Status: 403}
	}
	event := &WebhookEvent{ID: id}
	if err := json.Unmarshal(body, event); err != nil {
		return nil, &Error{Code: CodeAnswerInvalid, Message: "The event is not of the expected form.", cause: err}
	}
	return event, nil
}
