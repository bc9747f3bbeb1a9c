package camserve

import (
	"context"
	"io"

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
