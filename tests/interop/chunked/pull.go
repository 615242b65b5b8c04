package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	digest "github.com/opencontainers/go-digest"
	"go.podman.io/storage"
	graphdriver "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/chunked"
)

// open is a store of overlays below a folder, set as distributions set podman's.
func open(root string) (storage.Store, error) {
	return storage.GetStore(storage.StoreOptions{
		RunRoot: filepath.Join(root, "run"), GraphRoot: filepath.Join(root, "graph"),
		GraphDriverName: "overlay", PullOptions: map[string]string{"enable_partial_images": "true"},
	})
}

// blob is a layer that is there in parts, as a registry's is; it counts what is asked for.
type blob struct {
	*os.File
	requests int
	bytes    uint64
}

func (b *blob) GetBlobAt(parts []chunked.ImageSourceChunk) (chan io.ReadCloser, chan error, error) {
	streams, errs := make(chan io.ReadCloser), make(chan error)
	b.requests++
	for _, part := range parts {
		b.bytes += part.Length
	}
	go func() {
		for _, part := range parts {
			streams <- io.NopCloser(io.NewSectionReader(b.File, int64(part.Offset), int64(part.Length)))
		}
		close(streams)
		close(errs)
	}()
	return streams, errs, nil
}

type pulled struct {
	Whole    string `json:"whole,omitempty"` // why the layer has to be pulled whole
	Refused  string `json:"refused,omitempty"`
	DiffID   string `json:"diff_id,omitempty"`
	Again    string `json:"again,omitempty"` // sha256 of the layer as the store gives it back
	Files    string `json:"files,omitempty"` // the folder of its files
	Requests int    `json:"requests"`
	Bytes    uint64 `json:"bytes"`
}

func failed(err error) *pulled {
	var fallback chunked.ErrFallbackToOrdinaryLayerDownload
	if errors.As(err, &fallback) {
		return &pulled{Whole: err.Error()}
	}
	return &pulled{Refused: err.Error()}
}

// pull takes a layer partially, as podman does: pull ROOT BLOB ANNOTATIONS, a file of JSON.
func pull(args []string) (any, error) {
	if len(args) != 3 {
		return nil, errors.New("usage: pull ROOT BLOB ANNOTATIONS")
	}
	data, err := os.ReadFile(args[2])
	if err != nil {
		return nil, err
	}
	var annotations map[string]string
	if err := json.Unmarshal(data, &annotations); err != nil {
		return nil, err
	}
	f, err := os.Open(args[1])
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	store, err := open(args[0])
	if err != nil {
		return nil, err
	}
	defer store.Shutdown(true)
	src := &blob{File: f}
	name, err := digest.FromReader(f)
	if err != nil {
		return nil, err
	}
	differ, err := chunked.NewDiffer(context.Background(), store, name, st.Size(), annotations, src)
	if err != nil {
		return failed(err), nil
	}
	defer differ.Close()
	staged, err := store.PrepareStagedLayer(nil, differ)
	if err != nil {
		return failed(err), nil
	}
	id := name.Encoded()
	if _, err := store.ApplyStagedLayer(storage.ApplyStagedLayerOptions{
		ID: id, DiffOutput: staged, DiffOptions: &graphdriver.ApplyDiffWithDifferOpts{},
	}); err != nil {
		return nil, err
	}
	again, err := store.Diff("", id, nil)
	if err != nil {
		return nil, err
	}
	defer again.Close()
	sum, err := digest.FromReader(again)
	if err != nil {
		return nil, fmt.Errorf("the layer cannot be put together again: %w", err)
	}
	return &pulled{
		DiffID: staged.UncompressedDigest.String(), Again: sum.String(),
		Files:    filepath.Join(args[0], "graph/overlay", id, "diff"),
		Requests: src.requests, Bytes: src.bytes,
	}, nil
}
