package camserve

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "camserve.example/go/gen/camserve/v1"
)

// inPieces is too large to be sent whole.
var inPieces = Bytes(make([]byte, wholeBytes+1))

func (f *faulty) StartUpload(_ context.Context, request *pb.StartUploadRequest) (*pb.UploadProgress, error) {
	f.started = append(f.started, request)
	return &pb.UploadProgress{StorageId: "img_1", SizeBytes: request.GetSizeBytes()}, nil
}

func (f *faulty) AppendUpload(stream grpc.ClientStreamingServer[pb.AppendUploadRequest, pb.UploadProgress]) error {
	if err := f.refuse(stream.Context()); err != nil {
		return err
	}
	for {
		message, err := stream.Recv()
		if err == io.EOF {
			stored := &pb.Upload{StorageId: "img_1", SizeBytes: f.offset}
			return stream.SendAndClose(&pb.UploadProgress{StorageId: "img_1", Offset: f.offset, Upload: stored})
		}
		if err != nil {
			return err
		}
		f.offset += int64(len(message.GetBody().GetData()))
	}
}

func (f *faulty) GetUploadProgress(ctx context.Context, _ *pb.GetUploadProgressRequest) (*pb.UploadProgress, error) {
	return &pb.UploadProgress{StorageId: "img_1", Offset: f.offset}, f.refuse(ctx)
}

func TestAnUploadSurvivesAServiceThatIsAwayForLongerThanACallMayTake(t *testing.T) {
	client, slept := against(t, &faulty{refusals: 10})
	stored, err := client.Upload(context.Background(), inPieces, nil)
	if err != nil || stored.GetSizeBytes() != wholeBytes+1 {
		t.Fatal(stored, err)
	}
	if away := total(*slept); away < defaultTime {
		t.Fatal(away)
	}
}

func TestAnUploadThatDoesNotMoveFails(t *testing.T) {
	client, slept := against(t, &faulty{refusals: 1000})
	_, err := client.Upload(context.Background(), inPieces, nil)
	var failed *Error
	if !errors.As(err, &failed) || failed.Code != "service.overloaded" {
		t.Fatal(err)
	}
	if away := total(*slept); away < stalledTime/2 || away > stalledTime {
		t.Fatal(away)
	}
}

func total(slept []time.Duration) (all time.Duration) {
	for _, pause := range slept {
		all += pause
	}
	return all
}

func TestAKeyOfTheCallersOwnNamesTheContentOfAnUpload(t *testing.T) {
	service := &faulty{}
	client, _ := against(t, service)
	for _, ctx := range []context.Context{context.Background(), WithIdempotencyKey(context.Background(), "mine")} {
		service.offset = 0
		if _, err := client.Upload(ctx, inPieces, nil); err != nil {
			t.Fatal(err)
		}
	}
	// openssl md5 -binary <(head -c 4194305 /dev/zero) | base64
	if without, with := service.started[0], service.started[1]; without.ContentMd5 != nil || with.GetContentMd5() != "BRK4HvrGXvrUiIBUPU1grw==" {
		t.Fatal(without, with)
	}
}
