//go:build !debian

package main

import (
	"io"
	"os"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/externaltoc"
)

// The options that Debian 12's version of the package does not have yet.
func newerOptions(minChunk, workers int) ([]estargz.Option, error) {
	return []estargz.Option{
		estargz.WithMinChunkSize(minChunk), estargz.WithParallelism(workers),
	}, nil
}

// external makes a lossless layer whose TOC goes to a file of its own.
func external(src io.Reader, dst io.Writer, toc string, level, chunk int) (string, string, error) {
	compressor := externaltoc.NewGzipCompressorWithLevel(level)
	w := estargz.NewWriterWithCompressor(dst, compressor)
	w.ChunkSize = chunk
	if err := w.AppendTarLossLess(src); err != nil {
		return "", "", err
	}
	d, err := w.Close()
	if err != nil {
		return "", "", err
	}
	out, err := os.Create(toc)
	if err != nil {
		return "", "", err
	}
	if _, err := compressor.WriteTOCTo(out); err != nil {
		return "", "", err
	}
	return w.DiffID(), d.String(), out.Close()
}

// externalOption has a layer's TOC read from a file of its own.
func externalOption(toc string) (estargz.OpenOption, error) {
	provide := func() ([]byte, error) { return os.ReadFile(toc) }
	return estargz.WithDecompressors(externaltoc.NewGzipDecompressor(provide)), nil
}
