package camserve

import (
	"context"
	"errors"
	"io"
	"iter"

	"google.golang.org/protobuf/proto"

	pb "camserve.example/go/gen/camserve/v1"
)

const pageItems = 200

// WaitJob returns a job once it has ended, one way or another; onJob, which may be nil, is told of every change.
//
// It follows the stream of the job's events, and asks now and then where no stream comes through. Without a deadline
// in ctx it waits without end.
func (c *Client) WaitJob(ctx context.Context, jobID string, onJob func(*pb.Job)) (*pb.Job, error) {
	if onJob == nil {
		onJob = func(*pb.Job) {}
	}
	ctx, end := c.alive(ctx)
	defer end()
	tried := c.retries.started(0)
	for {
		job, err := c.watchOnce(ctx, jobID, func() { tried.failures = 0 }, onJob)
		if err == nil {
			return job, nil
		}
		// An answer that is no stream may come from something between that lets none through.
		var failed *Error
		if errors.As(err, &failed) && failed.Code == CodeAnswerInvalid {
			err = &Error{Code: CodeConnectionFailed, Message: failed.Message}
		}
		if err := tried.pauseAfter(ctx, err); err != nil {
			return nil, err
		}
		job, err = c.Jobs.GetJob(ctx, &pb.GetJobRequest{JobId: jobID})
		if err != nil {
			return nil, err
		}
		onJob(job)
		switch job.GetStatus() {
		case pb.Job_succeeded, pb.Job_failed, pb.Job_canceled, pb.Job_expired:
			return job, nil
		}
	}
}

// watchOnce follows one stream to its end.
func (c *Client) watchOnce(ctx context.Context, jobID string, came func(), onJob func(*pb.Job)) (*pb.Job, error) {
	ctx, idle := watched(ctx, idleStream)
	defer idle.stop()
	stream, err := c.Jobs.WatchJob(ctx, &pb.WatchJobRequest{JobId: jobID})
	if err != nil {
		return nil, err
	}
	for {
		event, err := stream.Recv()
		if err == io.EOF {
			return nil, endedEarly
		}
		if err != nil {
			return nil, err
		}
		idle.moved()
		if event.GetError() != nil {
			return nil, AsError(event.GetError())
		}
		came()
		if event.GetJob() != nil {
			onJob(event.GetJob())
			if event.GetEvent() == pb.StreamEvent_done {
				return event.GetJob(), nil
			}
		}
	}
}

// JobResults yields every image of a job in the order of the request, finished or not.
func (c *Client) JobResults(ctx context.Context, jobID string) iter.Seq2[*pb.JobItem, error] {
	return func(yield func(*pb.JobItem, error) bool) {
		request := &pb.ListJobResultsRequest{JobId: jobID, Limit: proto.Int32(pageItems)}
		for {
			page, err := c.Jobs.ListJobResults(ctx, request)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, item := range page.GetItems() {
				if !yield(item, nil) {
					return
				}
			}
			if request.Cursor = page.GetPage().GetNextCursor(); request.Cursor == "" {
				return
			}
		}
	}
}
