package camserve

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	other  = "whsec_ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="
	body   = `{"event":"job.succeeded","job_id":"job_1","status":"succeeded","items_succeeded":9,"items_failed":1,"metadata":{"order":7}}`
)

func sign(t *testing.T, secret, id string, at time.Time, body string) string {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, secretPrefix))
	if err != nil {
		t.Fatal(err)
	}
	code := hmac.New(sha256.New, key)
	code.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "." + body))
	return "v1," + base64.StdEncoding.EncodeToString(code.Sum(nil))
}

func headers(signature string, at time.Time) http.Header {
	made := http.Header{}
	made.Set("webhook-id", "evt_1")
	made.Set("webhook-timestamp", strconv.FormatInt(at.Unix(), 10))
	made.Set("webhook-signature", signature)
	return made
}

func codeOf(err error) string {
	var failed *Error
	if errors.As(err, &failed) {
		return failed.Code
	}
	return ""
}

func TestASignatureOfAnySecretFits(t *testing.T) {
	now := time.Now()
	both := sign(t, other, "evt_1", now, body) + " " + sign(t, secret, "evt_1", now, body)
	for _, secrets := range [][]string{{secret}, {other}, {other, secret}} {
		event, err := VerifyWebhook(headers(both, now), []byte(body), secrets...)
		if err != nil {
			t.Fatal(err)
		}
		if event.ID != "evt_1" || event.JobID != "job_1" || event.ItemsSucceeded != 9 || event.Metadata["order"] != 7.0 {
			t.Fatal(event)
		}
	}
}

func TestAForgedEventIsRefused(t *testing.T) {
	now := time.Now()
	good := sign(t, secret, "evt_1", now, body)
	for name, one := range map[string]struct {
		header http.Header
		body   string
	}{
		"another body":   {headers(good, now), body + " "},
		"another secret": {headers(sign(t, other, "evt_1", now, body), now), body},
		"another id":     {headers(sign(t, secret, "evt_2", now, body), now), body},
		"another time":   {headers(good, now.Add(time.Second)), body},
		"no signature":   {http.Header{}, body},
	} {
		if _, err := VerifyWebhook(one.header, []byte(one.body), secret); codeOf(err) != "signature.invalid" {
			t.Error(name, err)
		}
	}
}

func TestAnOldEventIsRefused(t *testing.T) {
	now := time.Now()
	for _, age := range []time.Duration{-301 * time.Second, 301 * time.Second} {
		at := now.Add(age)
		header := headers(sign(t, secret, "evt_1", at, body), at)
		if _, err := verifyWebhook(now, header, []byte(body), []string{secret}); codeOf(err) != "signature.expired" {
			t.Error(age, err)
		}
		if _, err := verifyWebhook(at, header, []byte(body), []string{secret}); err != nil {
			t.Error(age, err)
		}
	}
}

func TestASecretThatIsNoneIsTold(t *testing.T) {
	for _, none := range []string{"", "whsec_", "whsec_abc", secret[6:]} {
		if _, err := VerifyWebhook(http.Header{}, nil, none); err == nil || codeOf(err) != "" {
			t.Error(none, err)
		}
	}
}
