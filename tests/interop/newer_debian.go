//go:build debian

package main

import (
	"errors"
	"io"

	"github.com/containerd/stargz-snapshotter/estargz"
)

func newerOptions(minChunk, workers int) ([]estargz.Option, error) {
	if minChunk != 0 || workers != 0 {
		return nil, errors.New("this version of the package has no -min-chunk-size and -workers")
	}
	return nil, nil
}

var errNoExternal = errors.New("this version of the package has no external TOC")

func external(src io.Reader, dst io.Writer, toc string, level, chunk int) (string, string, error) {
	return "", "", errNoExternal
}

func externalOption(toc string) (estargz.OpenOption, error) { return nil, errNoExternal }
