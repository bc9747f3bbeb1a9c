package camserve

import (
	"context"
	"errors"
	"math"
	"net/http"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

var busy = &Error{Code: "service.overloaded", Status: 503}

// clocked are retries on a clock that only sleeping moves, and what was slept. They draw the longest pauses.
func clocked() (retries, *[]time.Duration) {
	now := time.Now()
	var slept []time.Duration
	made := newRetries(DefaultBackoff)
	made.now = func() time.Time { return now }
	made.random = func() float64 { return 1 }
	made.sleep = func(_ context.Context, pause time.Duration) error {
		now = now.Add(pause)
		slept = append(slept, pause)
		return nil
	}
	return made, &slept
}

func refusing(times int, err error) (func() error, *int) {
	made := 0
	return func() error {
		if made++; made <= times {
			return err
		}
		return nil
	}, &made
}

func seconds64(values ...float64) []time.Duration {
	made := make([]time.Duration, len(values))
	for place, value := range values {
		made[place] = time.Duration(value * float64(time.Second))
	}
	return made
}

func TestPausesDoubleFromHalfASecondToHalfAMinute(t *testing.T) {
	policy, slept := clocked()
	attempt, _ := refusing(9, busy)
	if err := policy.run(context.Background(), attempt); err != nil {
		t.Fatal(err)
	}
	if want := seconds64(0.5, 1, 2, 4, 8, 16, 30, 30, 30); !slices.Equal(*slept, want) {
		t.Fatal(*slept)
	}
}

func TestJitterIsFull(t *testing.T) {
	policy, slept := clocked()
	policy.random = newRetries(DefaultBackoff).random
	attempt, _ := refusing(400, busy)
	if err := policy.run(context.Background(), attempt); err != nil {
		t.Fatal(err)
	}
	long := (*slept)[6:]
	if slices.Min(long) > 2*time.Second || slices.Max(long) < 28*time.Second || slices.Max(long) > 30*time.Second {
		t.Fatal(slices.Min(long), slices.Max(long))
	}
}

func TestWhatTheServiceSaysComesBeforeTheRandomTime(t *testing.T) {
	policy, slept := clocked()
	attempt, _ := refusing(2, &Error{Code: "rate.exceeded", Status: 429, RetryAfter: 7 * time.Second})
	if err := policy.run(context.Background(), attempt); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(*slept, seconds64(7.5, 8)) {
		t.Fatal(*slept)
	}
}

func TestWhatTheServiceSaysIsSecondsOrADate(t *testing.T) {
	in := func(ahead time.Duration) string { return time.Now().Add(ahead).UTC().Format(http.TimeFormat) }
	for text, want := range map[string]time.Duration{
		"7":                          7 * time.Second,
		in(time.Hour):                time.Hour,
		in(-time.Hour):               0,
		"4294967296":                 1 << 32 * time.Second,
		"99999999999999999999999999": longestWait,
	} {
		said := failure(context.Background(), status.Error(codes.ResourceExhausted, ""), metadata.Pairs("retry-after", text))
		// A date has no parts of a second, and some time has passed.
		var failed *Error
		if !errors.As(said, &failed) || failed.Code != "rate.exceeded" {
			t.Fatal(text, said)
		}
		if early := want - failed.RetryAfter; early < 0 || early > 5*time.Second {
			t.Errorf("%s: %#v", text, said)
		}
	}
	for _, text := range []string{"", "soon", "-5", "1.5"} {
		if _, when := wait([]string{text}); when {
			t.Error(text)
		}
	}
}

func TestAWaitThatIsLongerThanWhatIsLeftIsNotBegun(t *testing.T) {
	for _, long := range []time.Duration{time.Minute, longestWait, math.MaxInt64} {
		policy, slept := clocked()
		ctx, cancel := context.WithDeadline(context.Background(), policy.now().Add(time.Minute))
		defer cancel()
		refused := &Error{Code: "quota.exceeded", Status: 429, RetryAfter: long}
		attempt, _ := refusing(1, refused)
		if err := policy.run(ctx, attempt); err != refused || len(*slept) != 0 {
			t.Error(long, err, *slept)
		}
	}
}

func TestNoAttemptBeginsAfterTheDeadline(t *testing.T) {
	policy, slept := clocked()
	ctx, cancel := context.WithDeadline(context.Background(), policy.now().Add(5*time.Second))
	defer cancel()
	attempt, made := refusing(99, busy)
	if err := policy.run(ctx, attempt); err != busy {
		t.Fatal(err)
	}
	if !slices.Equal(*slept, seconds64(0.5, 1, 2)) || *made != 4 {
		t.Fatal(*slept, *made)
	}
}

func TestWhatCannotPassIsNotTriedAgain(t *testing.T) {
	for _, failed := range []*Error{
		{Code: "model.not_found", Status: 404},
		{Code: "idempotency.key_reused", Status: 422},
		{Code: "job.already_completed", Status: 409},
		{Code: CodeAnswerInvalid},
		{Code: "internal", Status: 500},
	} {
		policy, _ := clocked()
		attempt, made := refusing(1, failed)
		if err := policy.run(context.Background(), attempt); err != failed || *made != 1 {
			t.Error(failed.Code, err, *made)
		}
	}
}

func TestWhatMayPassIsTriedAgain(t *testing.T) {
	for _, failed := range []*Error{
		{Code: CodeConnectionFailed},
		{Code: "idempotency.in_progress", Status: 409},
		{Code: "upstream.failed", Status: 502},
		{Code: "store.unavailable", Status: 503},
		{Code: "timeout.exceeded", Status: 504},
	} {
		policy, _ := clocked()
		attempt, made := refusing(1, failed)
		if err := policy.run(context.Background(), attempt); err != nil || *made != 2 {
			t.Error(failed.Code, err, *made)
		}
	}
}

func TestProgressBeginsThePausesAndTheTimeAgain(t *testing.T) {
	policy, slept := clocked()
	tried := policy.started(4 * time.Second)
	for range 2 {
		for range 2 {
			if err := tried.pauseAfter(context.Background(), busy); err != nil {
				t.Fatal(err)
			}
		}
		tried.restart()
	}
	if !slices.Equal(*slept, seconds64(0.5, 1, 0.5, 1)) {
		t.Fatal(*slept)
	}
}

func TestACallerWhoLeavesIsNotKept(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	policy := newRetries(Backoff{First: time.Hour, Factor: 1, Cap: time.Hour})
	attempt := func() error {
		time.AfterFunc(10*time.Millisecond, cancel)
		return busy
	}
	if err := policy.run(ctx, attempt); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
