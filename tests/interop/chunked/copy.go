package main

import (
	"context"
	"errors"

	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/signature"
	store "go.podman.io/image/v5/storage"
	"go.podman.io/image/v5/types"
)

// copyImage pulls an image from a registry, by the code that is podman's: copy ROOT //HOST/NAME:TAG.
// Prints its ID, its layers, lowest first, and where they are mounted.
func copyImage(args []string) (any, error) {
	if len(args) != 2 {
		return nil, errors.New("usage: copy ROOT //HOST/NAME:TAG")
	}
	ctx := context.Background()
	src, err := docker.ParseReference(args[1])
	if err != nil {
		return nil, err
	}
	local, err := open(args[0])
	if err != nil {
		return nil, err
	}
	defer local.Shutdown(false)
	dst, err := store.Transport.ParseStoreReference(local, src.DockerReference().String())
	if err != nil {
		return nil, err
	}
	policy, err := signature.NewPolicyContext(&signature.Policy{
		Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()},
	})
	if err != nil {
		return nil, err
	}
	plain := &types.SystemContext{DockerInsecureSkipTLSVerify: types.OptionalBoolTrue}
	if _, err := copy.Image(ctx, policy, dst, src, &copy.Options{SourceCtx: plain}); err != nil {
		return nil, err
	}
	_, image, err := store.ResolveReference(dst)
	if err != nil {
		return nil, err
	}
	type layer struct {
		DiffID string `json:"diff_id"`
		TOC    string `json:"toc,omitempty"` // the digest by which it was pulled in part
	}
	layers := []layer{}
	for id := image.TopLayer; id != ""; {
		found, err := local.Layer(id)
		if err != nil {
			return nil, err
		}
		one := layer{found.UncompressedDigest.String(), found.TOCDigest.String()}
		layers, id = append([]layer{one}, layers...), found.Parent
	}
	mounted, err := local.Mount(image.TopLayer, "")
	if err != nil {
		return nil, err
	}
	return map[string]any{"id": image.ID, "layers": layers, "files": mounted}, nil
}
