// containerd's stargz snapshotter of a version that knows external TOCs and zstd:chunked, which
// Debian's does not:
//
//	snapshotter SOCKET FOLDER
//
// It fetches nothing but what is read, verifies what it reads, and speaks plain HTTP.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	registries "github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/stargz-snapshotter/fs"
	"github.com/containerd/stargz-snapshotter/fs/config"
	"github.com/containerd/stargz-snapshotter/fs/layer"
	"github.com/containerd/stargz-snapshotter/fs/source"
	"github.com/containerd/stargz-snapshotter/metadata"
	"github.com/containerd/stargz-snapshotter/nativeconverter/estargz/externaltoc"
	"github.com/containerd/stargz-snapshotter/snapshot"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
)

// external reads a layer's TOC from the image that has it, which the name of its own leads to.
func external(
	ctx context.Context, hosts source.RegistryHosts, ref reference.Spec, desc ocispec.Descriptor,
) []metadata.Decompressor {
	return []metadata.Decompressor{externaltoc.NewRemoteDecompressor(ctx, hosts, ref, desc)}
}

func serve(socket, folder string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	hosts := func(ref reference.Spec) ([]docker.RegistryHost, error) {
		options := registries.HostOptions{DefaultScheme: "http"}
		return registries.ConfigureHosts(ctx, options)(ref.Hostname())
	}
	layers, err := fs.NewFilesystem(
		filepath.Join(folder, "stargz"),
		config.Config{NoPrefetch: true, NoBackgroundFetch: true, NoPrometheus: true},
		fs.WithGetSources(source.FromDefaultLabels(hosts)),
		fs.WithOverlayOpaqueType(layer.OverlayOpaqueTrusted),
		fs.WithAdditionalDecompressors(external),
	)
	if err != nil {
		return err
	}
	snapshotter, err := snapshot.NewSnapshotter(ctx, filepath.Join(folder, "snapshots"), layers)
	if err != nil {
		return err
	}
	defer snapshotter.Close()

	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(snapshotter))
	go func() {
		<-ctx.Done()
		server.Stop()
	}()
	return server.Serve(listener)
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: snapshotter SOCKET FOLDER")
		os.Exit(2)
	}
	if err := serve(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
