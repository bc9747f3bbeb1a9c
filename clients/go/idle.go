package camserve

import (
	"context"
	"fmt"
	"time"
)

// Three heartbeats of a stream.
const idleStream = 45 * time.Second

var endedEarly = &Error{Code: CodeConnectionFailed, Message: "The stream ended early."}

// idle ends a context when nothing moved for a while.
type idle struct {
	timer  *time.Timer
	after  time.Duration
	cancel context.CancelCauseFunc
}

func watched(ctx context.Context, after time.Duration) (context.Context, idle) {
	ctx, cancel := context.WithCancelCause(ctx)
	silent := &Error{Code: CodeConnectionFailed, Message: fmt.Sprintf("Nothing moved for %v.", after)}
	return ctx, idle{time.AfterFunc(after, func() { cancel(silent) }), after, cancel}
}

func (i idle) moved() { i.timer.Reset(i.after) }

func (i idle) stop() {
	i.timer.Stop()
	i.cancel(context.Canceled)
}
