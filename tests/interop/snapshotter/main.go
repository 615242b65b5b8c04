//go:build debian

// containerd's stargz snapshotter as a program, which Debian has as a library only:
//
//	snapshotter SOCKET FOLDER
//
// It fetches nothing but what is read (no prefetch, nothing in the background), verifies what
// it reads, and speaks plain HTTP. It unmounts everything when it is terminated.
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
	"github.com/containerd/containerd/contrib/snapshotservice"
	"github.com/containerd/containerd/reference"
	"github.com/containerd/containerd/remotes/docker"
	registries "github.com/containerd/containerd/remotes/docker/config"
	"github.com/containerd/stargz-snapshotter/fs"
	"github.com/containerd/stargz-snapshotter/fs/config"
	"github.com/containerd/stargz-snapshotter/fs/layer"
	"github.com/containerd/stargz-snapshotter/fs/source"
	"github.com/containerd/stargz-snapshotter/snapshot"
	"google.golang.org/grpc"
)

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
