package camserve

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"time"
)

// longestWait is what a time.Duration holds of a wait, with room for a pause.
const longestWait = math.MaxInt64 / 2

// Backoff is exponential with full jitter: a random time up to First, which grows by Factor up to Cap.
//
// Where the service says when to come again (Retry-After), the random time is added to that.
type Backoff struct {
	First  time.Duration
	Factor float64
	Cap    time.Duration
}

// DefaultBackoff is half a second, doubled up to half a minute.
var DefaultBackoff = Backoff{First: 500 * time.Millisecond, Factor: 2, Cap: 30 * time.Second}

// window returns the longest random wait after that many failures, 1 or more.
func (b Backoff) window(failures int) time.Duration {
	longest := float64(b.First)
	for range failures - 1 {
		if longest >= float64(b.Cap) {
			break
		}
		longest *= b.Factor
	}
	return min(b.Cap, time.Duration(longest))
}

// retries tells time, waits and draws; others in tests.
type retries struct {
	backoff Backoff
	now     func() time.Time
	sleep   func(context.Context, time.Duration) error
	random  func() float64
}

func newRetries(backoff Backoff) retries {
	return retries{backoff: backoff, now: time.Now, sleep: sleep, random: rand.Float64}
}

// tries counts the failures of one call. Where limit is not 0 no attempt begins later than that after the beginning.
type tries struct {
	retries
	limit    time.Duration
	ends     time.Time
	failures int
}

func (r retries) started(limit time.Duration) *tries {
	return &tries{retries: r, limit: limit, ends: r.now().Add(limit)}
}

// restart begins again: something came through.
func (t *tries) restart() { t.failures, t.ends = 0, t.now().Add(t.limit) }

// run does what attempt does, until that succeeds, cannot pass, or the next attempt would begin after ctx's deadline.
func (r retries) run(ctx context.Context, attempt func() error) error {
	tried := r.started(0)
	for {
		err := attempt()
		if err == nil {
			return nil
		}
		if err := tried.pauseAfter(ctx, err); err != nil {
			return err
		}
	}
}

// pauseAfter waits until the next attempt; returns err when there shall be none.
func (t *tries) pauseAfter(ctx context.Context, err error) error {
	var failed *Error
	if !errors.As(err, &failed) || !failed.Retryable() || ctx.Err() == context.DeadlineExceeded {
		return err
	}
	if ctx.Err() != nil {
		return failure(ctx, ctx.Err(), nil)
	}
	t.failures++
	pause := min(failed.RetryAfter, longestWait) + time.Duration(t.random()*float64(t.backoff.window(t.failures)))
	begins := t.now().Add(pause)
	if deadline, ok := ctx.Deadline(); ok && !begins.Before(deadline) || t.limit > 0 && !begins.Before(t.ends) {
		return err
	}
	if t.sleep(ctx, pause) != nil {
		return failure(ctx, ctx.Err(), nil)
	}
	return nil
}

func sleep(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
