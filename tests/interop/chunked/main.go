// Both Go implementations of zstd:chunked behind a small command line, for the interop tests and
// the benchmarks: "c" is that of containers/storage (podman, buildah, CRI-O), "s" that of
// stargz-snapshotter, whose external TOCs are here too. Every command prints one JSON value.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/externaltoc"
	"github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	"github.com/klauspost/compress/zstd"
	"go.podman.io/storage/pkg/chunked/compressor"
	"go.podman.io/storage/pkg/reexec"
)

type layer struct {
	Annotations map[string]string `json:"annotations"`
	DiffID      string            `json:"diff_id,omitempty"`
	TOCDigest   string            `json:"toc_digest,omitempty"`
}

type both struct {
	*zstdchunked.Compressor
	*zstdchunked.Decompressor
}

// writeC keeps the tar as it is.
func writeC(src io.Reader, dst io.Writer, level int) (*layer, error) {
	made := &layer{Annotations: map[string]string{}}
	w, err := compressor.ZstdCompressor(dst, made.Annotations, &level)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(w, src); err != nil {
		return nil, err
	}
	return made, w.Close()
}

// writeS sorts the tar, and adds its landmark.
func writeS(src *io.SectionReader, dst io.Writer, level, chunk int) (*layer, error) {
	made := &layer{Annotations: map[string]string{}}
	compressor := &zstdchunked.Compressor{
		CompressionLevel: zstd.EncoderLevelFromZstd(level), Metadata: made.Annotations,
	}
	blob, err := estargz.Build(src, estargz.WithChunkSize(chunk),
		estargz.WithCompression(&both{compressor, &zstdchunked.Decompressor{}}))
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(dst, blob); err != nil {
		return nil, err
	}
	if err := blob.Close(); err != nil {
		return nil, err
	}
	made.DiffID, made.TOCDigest = blob.DiffID().String(), blob.TOCDigest().String()
	made.Annotations[estargz.TOCJSONDigestAnnotation] = made.TOCDigest
	return made, nil
}

// writeExternal keeps the tar as it is, and the TOC in a file of its own.
func writeExternal(src io.Reader, dst io.Writer, toc string, chunk int) (*layer, error) {
	compressor := externaltoc.NewGzipCompressor()
	w := estargz.NewWriterWithCompressor(dst, compressor)
	w.ChunkSize = chunk
	if err := w.AppendTarLossLess(src); err != nil {
		return nil, err
	}
	digest, err := w.Close()
	if err != nil {
		return nil, err
	}
	out, err := os.Create(toc)
	if err != nil {
		return nil, err
	}
	if _, err := compressor.WriteTOCTo(out); err != nil {
		return nil, err
	}
	made := &layer{
		Annotations: map[string]string{estargz.TOCJSONDigestAnnotation: digest.String()},
		DiffID:      w.DiffID(),
		TOCDigest:   digest.String(),
	}
	return made, out.Close()
}

// write makes a layer of a tar: write c|s|external [options] TAR DST.
func write(args []string) (any, error) {
	flags := flag.NewFlagSet("write", flag.ExitOnError)
	level := flags.Int("level", 3, "zstd level, of c and s")
	chunk := flags.Int("chunk-size", 0, "of s and external; 0 for the default")
	if len(args) < 1 {
		return nil, errors.New("usage: write c|s|external [options] TAR DST")
	}
	flags.Parse(args[1:])
	if flags.NArg() != 2 {
		return nil, errors.New("usage: write c|s|external [options] TAR DST")
	}
	src, err := section(flags.Arg(0))
	if err != nil {
		return nil, err
	}
	dst, err := os.Create(flags.Arg(1))
	if err != nil {
		return nil, err
	}
	var made *layer
	switch args[0] {
	case "c":
		made, err = writeC(src, dst, *level)
	case "s":
		made, err = writeS(src, dst, *level, *chunk)
	case "external":
		made, err = writeExternal(src, dst, flags.Arg(1)+".toc", *chunk)
	default:
		err = errors.New("no such format: " + strconv.Quote(args[0]))
	}
	if err != nil {
		return nil, err
	}
	return made, dst.Close()
}

func section(name string) (*io.SectionReader, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return io.NewSectionReader(f, 0, st.Size()), nil
}

func main() {
	if reexec.Init() { // containers/storage runs itself for what takes another root
		return
	}
	commands := map[string]func([]string) (any, error){
		"write": write, "read": read, "pull": pull, "copy": copyImage,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: chunked write|read|pull|copy ...")
		os.Exit(2)
	}
	value, err := commands[os.Args[1]](os.Args[2:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(value)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chunked:", err)
		os.Exit(1)
	}
}
