package camserve

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "camserve.example/go/gen/camserve/v1"
)

const (
	// Up to this a second attempt from the beginning costs no more than asking how far the first one came.
	wholeBytes = 4 << 20
	pieceBytes = 8 << 20
	chunkBytes = 256 << 10
	// An attempt that moves no byte for so long is over, even if the connection does not say so.
	idleTime = 60 * time.Second
	// Longer than the minute for which the edge still counts a connection that died without a word.
	stalledTime = 150 * time.Second
	// The slowest network that still counts as one.
	slowestBytesPerSecond = 64 << 10
	untyped               = "application/octet-stream"
)

// Progress says how far an upload has come: bytes on their way or there. StorageID resumes it, where it can be.
type Progress struct {
	SentBytes, TotalBytes int64
	StorageID             string
}

// Upload stores an image, to be used any number of times as StorageID.
//
// Above 4 MiB it goes in pieces, and goes on where a broken connection left it; no more than a piece of a chunk is in
// memory. onProgress may be nil. It fails when nothing moved for 150 s. Under a key of the caller's own the same image is
// the same upload, which goes on where it was; such an image is read twice, for its MD5 first.
func (c *Client) Upload(ctx context.Context, image Image, onProgress func(Progress)) (*pb.Upload, error) {
	return c.upload(ctx, image, "", onProgress)
}

// ResumeUpload goes on with an upload that another program began, by the StorageID of its progress.
func (c *Client) ResumeUpload(
	ctx context.Context, storageID string, image Image, onProgress func(Progress),
) (*pb.Upload, error) {
	return c.upload(ctx, image, storageID, onProgress)
}

func (c *Client) upload(
	ctx context.Context, image Image, storageID string, onProgress func(Progress),
) (*pb.Upload, error) {
	ctx, end := c.alive(ctx)
	defer end()
	opened, err := image.opened()
	if err != nil {
		return nil, err
	}
	defer opened.close()
	if onProgress == nil {
		onProgress = func(Progress) {}
	}
	if storageID == "" && opened.size <= wholeBytes {
		return c.uploadWhole(ctx, opened, onProgress)
	}
	offset := int64(0)
	if storageID == "" {
		request := &pb.StartUploadRequest{SizeBytes: proto.Int64(opened.size)}
		if hasKey(ctx) {
			// Another image of that size under the key is refused so, instead of being taken for the first.
			sum, err := opened.md5()
			if err != nil {
				return nil, err
			}
			request.ContentMd5 = &sum
		}
		begun, err := c.Uploads.StartUpload(ctx, request)
		if err != nil {
			return nil, err
		}
		storageID = begun.GetStorageId()
	} else {
		begun, err := c.Uploads.GetUploadProgress(ctx, &pb.GetUploadProgressRequest{StorageId: storageID})
		if err != nil {
			return nil, err
		}
		if begun.GetSizeBytes() != opened.size {
			return nil, errors.New("camserve: the upload is of another size than the image")
		}
		offset = begun.GetOffset()
	}
	stored, err := c.uploadPieces(ctx, opened, storageID, offset, onProgress)
	if err != nil || stored != nil {
		return stored, err
	}
	return c.Uploads.GetUpload(ctx, &pb.GetUploadRequest{StorageId: storageID})
}

func (c *Client) uploadWhole(ctx context.Context, from content, onProgress func(Progress)) (*pb.Upload, error) {
	var stored *pb.Upload
	ctx, cancel := c.bounded(ctx, c.timeout+slowest(from.size))
	defer cancel()
	ctx, err := keyed(ctx, pb.UploadService_UploadImage_FullMethodName)
	if err != nil {
		return nil, err
	}
	err = c.retries.run(ctx, func() (err error) {
		first := &pb.UploadImageRequest{SizeBytes: proto.Int64(from.size)}
		stored, err = send(ctx, c.Uploads.UploadImage, io.NewSectionReader(from, 0, from.size),
			func(body *httpbody.HttpBody) *pb.UploadImageRequest {
				message := first
				message.Body, first = body, &pb.UploadImageRequest{}
				return message
			},
			func(sent int64) { onProgress(Progress{SentBytes: sent, TotalBytes: from.size}) })
		return err
	})
	return stored, err
}

// uploadPieces sends the rest of an upload, and goes on where it broke off. It returns nil when all has come but the
// service is not done with storing it.
func (c *Client) uploadPieces(
	ctx context.Context, from content, storageID string, offset int64, onProgress func(Progress),
) (*pb.Upload, error) {
	tell := func(sent int64) { onProgress(Progress{sent, from.size, storageID}) }
	for {
		reached, err := c.nextPiece(ctx, from, storageID, offset, tell)
		if err != nil {
			return nil, err
		}
		offset = reached.GetOffset()
		tell(offset)
		if offset >= from.size {
			return reached.GetUpload(), nil
		}
	}
}

// nextPiece returns once the upload has come further than offset.
func (c *Client) nextPiece(
	ctx context.Context, from content, storageID string, offset int64, tell func(int64),
) (*pb.UploadProgress, error) {
	tried := c.retries.started(stalledTime)
	for {
		reached, err := c.appendPiece(ctx, from, storageID, offset, min(offset+pieceBytes, from.size), tell)
		if err == nil {
			return reached, nil
		}
		var failed *Error
		conflict := errors.As(err, &failed) && failed.Code == codeOffsetConflict
		if !conflict {
			if err := tried.pauseAfter(ctx, err); err != nil {
				return nil, err
			}
		}
		reached, err = c.reached(ctx, storageID, tried)
		if err != nil {
			return nil, err
		}
		if reached.GetOffset() != offset {
			return reached, nil
		}
		if conflict {
			// Somebody else adds bytes just now, such as our own connection that died unnoticed.
			busy := &Error{Code: CodeConnectionFailed, Message: failed.Message, Status: failed.Status}
			if err := tried.pauseAfter(ctx, busy); err != nil {
				return nil, err
			}
		}
	}
}

// reached asks how far an upload has come, for as long as it may stand still and not only as long as a call.
func (c *Client) reached(ctx context.Context, storageID string, tried *tries) (*pb.UploadProgress, error) {
	for {
		reached, err := c.Uploads.GetUploadProgress(ctx, &pb.GetUploadProgressRequest{StorageId: storageID})
		if err == nil {
			return reached, nil
		}
		if err := tried.pauseAfter(ctx, err); err != nil {
			return nil, err
		}
	}
}

func (c *Client) appendPiece(
	ctx context.Context, from content, storageID string, offset, end int64, tell func(int64),
) (*pb.UploadProgress, error) {
	// The deadline by which the service lets go of the piece, should the connection die unnoticed.
	ctx, cancel := context.WithTimeout(ctx, idleTime+slowest(end-offset))
	defer cancel()
	first := &pb.AppendUploadRequest{StorageId: storageID, Offset: proto.Int64(offset)}
	return send(ctx, c.Uploads.AppendUpload, io.NewSectionReader(from, offset, end-offset),
		func(body *httpbody.HttpBody) *pb.AppendUploadRequest {
			message := first
			message.Body, first = body, &pb.AppendUploadRequest{}
			return message
		},
		func(sent int64) { tell(offset + sent) })
}

// send streams bytes in a single attempt and returns the message that answers. wrap puts a body into a message.
func send[Q, A any](
	ctx context.Context,
	open func(context.Context, ...grpc.CallOption) (grpc.ClientStreamingClient[Q, A], error),
	from io.Reader,
	wrap func(*httpbody.HttpBody) *Q,
	sent func(int64),
) (*A, error) {
	ctx, idle := watched(ctx, idleTime)
	defer idle.stop()
	stream, err := open(ctx)
	if err != nil {
		return nil, err
	}
	// The stream may still hold a message that was sent, so each has bytes of its own.
	body, total := &httpbody.HttpBody{ContentType: untyped}, int64(0)
	for {
		data := make([]byte, chunkBytes)
		count, err := io.ReadFull(from, data)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return nil, unreadable(err)
		}
		if count == 0 && total > 0 {
			break
		}
		body.Data = data[:count]
		// io.EOF says that the service has ended the call: its answer is the reason.
		if stream.Send(wrap(body)) != nil || count == 0 {
			break
		}
		idle.moved()
		total += int64(count)
		sent(total)
		body = &httpbody.HttpBody{}
	}
	answer, err := stream.CloseAndRecv()
	if err != nil {
		return nil, failure(ctx, err, nil)
	}
	return answer, nil
}

func slowest(bytes int64) time.Duration {
	return time.Duration(bytes) * time.Second / slowestBytesPerSecond
}
