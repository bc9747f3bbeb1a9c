package camserve

import (
	"context"
	"io"
	"iter"

	"google.golang.org/protobuf/proto"

	pb "camserve.example/go/gen/camserve/v1"
)

const (
	// What one request of a batch carries: the service takes more, and begins with the first sooner.
	requestBytes  = 12_000_000
	requestImages = 64
)

// InferBatch yields each image of a batch as it is finished, in any order; one that fails is an item with an error.
//
// There may be any number of inputs: they are sent in requests of up to 64, or of what the tenant may send at once.
// After a broken stream those without an answer are sent again: that may be charged twice, and changes nothing else.
func (c *Client) InferBatch(ctx context.Context, ask *pb.InferBatchRequest) iter.Seq2[*pb.BatchItem, error] {
	return func(yield func(*pb.BatchItem, error) bool) {
		ctx, end := c.alive(ctx)
		defer end()
		if err := distinct(ask.GetInputs()); err != nil {
			yield(nil, err)
			return
		}
		limits, err := c.Limits.GetLimits(ctx, &pb.GetLimitsRequest{})
		if err != nil {
			yield(nil, err)
			return
		}
		most := max(1, min(requestImages, int(limits.GetMaxBatchSize())))
		for _, group := range groups(ask.GetInputs(), most) {
			if goesOn, err := c.batchOf(ctx, ask, group, yield); err != nil {
				yield(nil, err)
				return
			} else if !goesOn {
				return
			}
		}
	}
}

// batchOf yields the outcome of every input, each once; false when nobody wants more.
func (c *Client) batchOf(
	ctx context.Context, ask *pb.InferBatchRequest, inputs []*pb.BatchInput, yield func(*pb.BatchItem, error) bool,
) (bool, error) {
	waiting := make(map[string]bool, len(inputs))
	for _, input := range inputs {
		waiting[input.GetId()] = true
	}
	tried := c.retries.started(c.timeout)
	for len(waiting) > 0 {
		request := &pb.InferBatchRequest{
			Model: ask.GetModel(), ModelVersion: ask.GetModelVersion(), Response: ask.GetResponse(),
		}
		for _, input := range inputs {
			if waiting[input.GetId()] {
				request.Inputs = append(request.Inputs, input)
			}
		}
		wanted := true
		err := c.batchOnce(ctx, request, func(item *pb.BatchItem) bool {
			if waiting[item.GetId()] {
				delete(waiting, item.GetId())
				tried.restart()
				wanted = yield(item, nil)
			}
			return wanted
		})
		if !wanted {
			return false, nil
		}
		if len(waiting) > 0 {
			if err == nil {
				err = endedEarly
			}
			if err := tried.pauseAfter(ctx, err); err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

// batchOnce makes a single attempt and hands over its items while they are wanted. It returns an error unless the
// stream came to its end.
func (c *Client) batchOnce(ctx context.Context, request *pb.InferBatchRequest, take func(*pb.BatchItem) bool) error {
	ctx, idle := watched(ctx, idleStream)
	defer idle.stop()
	stream, err := c.Inference.InferBatch(ctx, request)
	if err != nil {
		return err
	}
	for {
		event, err := stream.Recv()
		if err == io.EOF {
			return endedEarly
		}
		if err != nil {
			return err
		}
		idle.moved()
		switch {
		case event.GetError() != nil:
			return AsError(event.GetError())
		case event.GetItem() != nil && !take(event.GetItem()):
			return nil
		case event.GetEvent() == pb.StreamEvent_done:
			return nil
		}
	}
}

// distinct refuses what the service, which gets inputs by and by, would not notice.
func distinct(inputs []*pb.BatchInput) error {
	seen := make(map[string]bool, len(inputs))
	for _, input := range inputs {
		if seen[input.GetId()] {
			return &Error{Code: "batch.duplicate_id", Message: "Two inputs of a batch have the same id.", Status: 400}
		}
		seen[input.GetId()] = true
	}
	return nil
}

// groups splits inputs into as many as one request takes, by their number and by their bytes.
func groups(inputs []*pb.BatchInput, most int) [][]*pb.BatchInput {
	var made [][]*pb.BatchInput
	var group []*pb.BatchInput
	bytes := 0
	for _, input := range inputs {
		size := proto.Size(input)
		if len(group) == most || len(group) > 0 && bytes+size > requestBytes {
			made, group, bytes = append(made, group), nil, 0
		}
		group, bytes = append(group, input), bytes+size
	}
	if len(group) > 0 {
		made = append(made, group)
	}
	return made
}
