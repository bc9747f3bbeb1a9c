package camserve

import (
	"context"
	"fmt"
	"io"
	"time"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/protobuf/proto"

	pb "camserve.example/go/gen/camserve/v1"
)

const (
	// The largest image that is better off within a message than as a stream.
	inlineBytes = 1 << 20
	// What is larger becomes a job anyway, and is worth an upload that survives broken connections.
	streamedBytes = 20_000_000
	removalTime   = 5 * time.Second
)

// Infer classifies one image as ask says, whose Image it fills in.
//
// A small image goes within the message, a larger one as a stream, one above 20 MB by an upload that survives broken
// connections, and is removed afterwards unless the caller has a key of its own. What the service makes a job of is
// waited for: then JobId is present beside the answer.
func (c *Client) Infer(ctx context.Context, image Image, ask *pb.InferRequest) (*pb.InferResponse, error) {
	if size, err := image.size(); err != nil {
		return nil, err
	} else if size > streamedBytes {
		stored, err := c.Upload(ctx, image, nil)
		if err != nil {
			return nil, err
		}
		if !hasKey(ctx) {
			// Under a key of the caller's own the same call names the same upload again.
			defer c.remove(ctx, stored.GetStorageId())
		}
		image = StorageID(stored.GetStorageId())
	}
	answer, err := c.infer(ctx, image, ask)
	switch {
	case err != nil:
		return nil, err
	case answer.JobId != nil:
		return c.inferred(ctx, answer)
	case len(answer.GetClasses()) == 0 && answer.GetModelVersion() == "":
		// Without classes alone it may be that none is probable enough.
		return nil, &Error{Code: CodeAnswerInvalid, Message: "The answer is empty."}
	}
	return answer, nil
}

func (c *Client) infer(ctx context.Context, image Image, ask *pb.InferRequest) (*pb.InferResponse, error) {
	request := proto.CloneOf(ask)
	if request.Image = image.reference(); request.Image != nil {
		return c.Inference.Infer(ctx, request)
	}
	opened, err := image.opened()
	if err != nil {
		return nil, err
	}
	defer opened.close()
	if opened.size > inlineBytes {
		return c.inferStreamed(ctx, opened, ask)
	}
	data, err := opened.read()
	if err != nil {
		return nil, err
	}
	request.Image = &pb.ImageInput{Source: &pb.ImageInput_Bytes{Bytes: data}}
	return c.Inference.Infer(ctx, request)
}

func (c *Client) inferStreamed(ctx context.Context, from content, ask *pb.InferRequest) (*pb.InferResponse, error) {
	ctx, cancel := c.bounded(ctx, c.timeout+slowest(from.size))
	defer cancel()
	ctx, err := keyed(ctx, pb.InferenceService_InferUpload_FullMethodName)
	if err != nil {
		return nil, err
	}
	var answer *pb.InferResponse
	err = c.retries.run(ctx, func() (err error) {
		first := &pb.InferUploadRequest{
			Model:        ask.GetModel(),
			ModelVersion: ask.GetModelVersion(),
			Resize:       ask.GetResize(),
			GradCam:      ask.GetGradCam(),
			Classify:     ask.GetClassify(),
			Response:     ask.GetResponse(),
			SizeBytes:    proto.Int64(from.size),
		}
		answer, err = send(ctx, c.Inference.InferUpload, io.NewSectionReader(from, 0, from.size),
			func(body *httpbody.HttpBody) *pb.InferUploadRequest {
				message := first
				message.Body, first = body, &pb.InferUploadRequest{}
				return message
			},
			func(int64) {})
		return err
	})
	return answer, err
}

// inferred waits for the job that a call became and returns the answer as the call would have.
func (c *Client) inferred(ctx context.Context, receipt *pb.InferResponse) (*pb.InferResponse, error) {
	job, err := c.WaitJob(ctx, receipt.GetJobId(), nil)
	if err != nil {
		return nil, err
	}
	for item, err := range c.JobResults(ctx, job.GetJobId()) {
		if err != nil {
			return nil, err
		}
		if err := AsError(item.GetError()); err != nil {
			return nil, err
		}
		if result := item.GetResult(); result != nil {
			return &pb.InferResponse{
				RequestId:          receipt.GetRequestId(),
				Model:              job.GetModel(),
				ModelVersion:       result.GetModelVersion(),
				LabelsVersion:      result.GetLabelsVersion(),
				CalibrationVersion: result.GetCalibrationVersion(),
				TimingsMs:          result.GetTimingsMs(),
				Image:              result.GetImage(),
				Classes:            result.GetClasses(),
				Heatmap:            result.GetHeatmap(),
				ContentSha256:      result.ContentSha256,
				JobId:              proto.String(job.GetJobId()),
			}, nil
		}
	}
	return nil, &Error{
		Code: CodeAnswerInvalid, Message: fmt.Sprintf("The job is %v and has no result.", job.GetStatus()),
	}
}

// remove removes an upload that was made for one call. One that stays goes by itself when its time is over.
func (c *Client) remove(ctx context.Context, storageID string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removalTime)
	defer cancel()
	_, _ = c.Uploads.DeleteUpload(ctx, &pb.DeleteUploadRequest{StorageId: storageID})
}

// Input returns an image as batches and jobs take it: within the message up to 1 MiB, uploaded above.
func (c *Client) Input(ctx context.Context, image Image) (*pb.ImageInput, error) {
	if input := image.reference(); input != nil {
		return input, nil
	}
	opened, err := image.opened()
	if err != nil {
		return nil, err
	}
	defer opened.close()
	if opened.size > inlineBytes {
		stored, err := c.Upload(withoutKey(ctx), image, nil)
		if err != nil {
			return nil, err
		}
		return StorageID(stored.GetStorageId()).reference(), nil
	}
	data, err := opened.read()
	if err != nil {
		return nil, err
	}
	return &pb.ImageInput{Source: &pb.ImageInput_Bytes{Bytes: data}}, nil
}
