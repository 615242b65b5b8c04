//go:build !debian

package main

import "github.com/containerd/stargz-snapshotter/estargz"

// The options that Debian 12's version of the package does not have yet.
func newerOptions(minChunk, workers int) ([]estargz.Option, error) {
	return []estargz.Option{
		estargz.WithMinChunkSize(minChunk), estargz.WithParallelism(workers),
	}, nil
}
