package camserve

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"io"
	"os"

	pb "camserve.example/go/gen/camserve/v1"
)

// Image is where an image comes from. It is read as often as attempts need it.
type Image struct {
	url, storageID string
	open           func() (content, error)
}

// content is an image that is open for reading.
type content struct {
	io.ReaderAt
	size  int64
	close func() error
}

// File is an image in a file, which is never read into memory whole unless it is small.
func File(path string) Image {
	return Image{open: func() (content, error) {
		file, err := os.Open(path)
		if err != nil {
			return content{}, unreadable(err)
		}
		information, err := file.Stat()
		if err != nil {
			_ = file.Close()
			return content{}, unreadable(err)
		}
		return content{file, information.Size(), file.Close}, nil
	}}
}

// Bytes is an encoded image in memory.
func Bytes(data []byte) Image { return Reader(bytes.NewReader(data), int64(len(data))) }

// Reader is an encoded image of size bytes.
func Reader(from io.ReaderAt, size int64) Image {
	return Image{open: func() (content, error) { return content{from, size, func() error { return nil }}, nil }}
}

// URL is an image that the service fetches.
func URL(url string) Image { return Image{url: url} }

// StorageID is an image that was uploaded before.
func StorageID(id string) Image { return Image{storageID: id} }

// reference returns an image that the service has or fetches; nil for bytes.
func (i Image) reference() *pb.ImageInput {
	switch {
	case i.url != "":
		return &pb.ImageInput{Source: &pb.ImageInput_Url{Url: i.url}}
	case i.storageID != "":
		return &pb.ImageInput{Source: &pb.ImageInput_StorageId{StorageId: i.storageID}}
	}
	return nil
}

func (i Image) opened() (content, error) {
	if i.open == nil {
		return content{}, errors.New("camserve: bytes are needed here: an Image made by File, Bytes or Reader")
	}
	return i.open()
}

// size returns the bytes of the image; 0 for one that the service has or fetches.
func (i Image) size() (int64, error) {
	if i.reference() != nil {
		return 0, nil
	}
	opened, err := i.opened()
	if err != nil {
		return 0, err
	}
	return opened.size, opened.close()
}

// md5 returns the MD5 of all bytes in base64, as the service takes it.
func (c content) md5() (string, error) {
	digest := md5.New()
	if _, err := io.CopyN(digest, io.NewSectionReader(c, 0, c.size), c.size); err != nil {
		return "", unreadable(err)
	}
	return base64.StdEncoding.EncodeToString(digest.Sum(nil)), nil
}

func (c content) read() ([]byte, error) {
	data := make([]byte, c.size)
	if _, err := io.ReadFull(io.NewSectionReader(c, 0, c.size), data); err != nil {
		return nil, unreadable(err)
	}
	return data, nil
}

func unreadable(cause error) error {
	return &Error{Code: CodeImageUnreadable, Message: "The image cannot be read.", cause: cause}
}
