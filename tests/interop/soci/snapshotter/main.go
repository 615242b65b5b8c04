// What an image with a SOCI index is pulled lazily by, three programs in one, by its name:
//
//	containerd ...              containerd 2, with the plugins that pulling takes
//	ctr images|snapshots ...    its client, of which only these can be built together with the
//	                            snapshotter's modules
//	snapshotter SOCKET FOLDER   soci-snapshotter, whose modules have a library only
//
// The snapshotter fetches nothing but what is read (nothing in the background), verifies what it
// reads, and takes indexes of both versions. It unmounts everything when it is terminated.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/awslabs/soci-snapshotter/config"
	"github.com/awslabs/soci-snapshotter/fs"
	"github.com/awslabs/soci-snapshotter/metadata"
	"github.com/awslabs/soci-snapshotter/service"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/cmd/containerd/command"
	"github.com/containerd/containerd/v2/cmd/ctr/commands/images"
	"github.com/containerd/containerd/v2/cmd/ctr/commands/snapshots"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/urfave/cli/v2"
	"google.golang.org/grpc"

	_ "github.com/containerd/containerd/v2/plugins/content/local/plugin"
	_ "github.com/containerd/containerd/v2/plugins/diff/walking/plugin"
	_ "github.com/containerd/containerd/v2/plugins/events"
	_ "github.com/containerd/containerd/v2/plugins/gc"
	_ "github.com/containerd/containerd/v2/plugins/imageverifier"
	_ "github.com/containerd/containerd/v2/plugins/leases"
	_ "github.com/containerd/containerd/v2/plugins/metadata"
	_ "github.com/containerd/containerd/v2/plugins/mount"
	_ "github.com/containerd/containerd/v2/plugins/services/content"
	_ "github.com/containerd/containerd/v2/plugins/services/diff"
	_ "github.com/containerd/containerd/v2/plugins/services/images"
	_ "github.com/containerd/containerd/v2/plugins/services/introspection"
	_ "github.com/containerd/containerd/v2/plugins/services/leases"
	_ "github.com/containerd/containerd/v2/plugins/services/namespaces"
	_ "github.com/containerd/containerd/v2/plugins/services/snapshots"
	_ "github.com/containerd/containerd/v2/plugins/services/streaming"
	_ "github.com/containerd/containerd/v2/plugins/services/transfer"
	_ "github.com/containerd/containerd/v2/plugins/services/version"
	_ "github.com/containerd/containerd/v2/plugins/snapshots/overlay/plugin"
	_ "github.com/containerd/containerd/v2/plugins/streaming"
	_ "github.com/containerd/containerd/v2/plugins/transfer"
)

func serve(socket, folder string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	settings := config.NewConfig()
	settings.PullModes.SOCIv1.Enable = true
	settings.PullModes.SOCIv2.Enable = true
	settings.NoPrometheus = true
	settings.BackgroundFetchConfig.Disable = true
	trees := metadata.NewMultiReader(filepath.Join(folder, "metadata"), metadata.DBMultiOptions{})
	options := service.WithFilesystemOptions(fs.WithMetadataStore(trees))
	snapshotter, err := service.NewSociSnapshotterService(ctx, folder, &settings.ServiceConfig, options)
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

func client() *cli.App {
	made := cli.NewApp()
	made.Flags = []cli.Flag{
		&cli.StringFlag{Name: "address", EnvVars: []string{"CONTAINERD_ADDRESS"}},
		&cli.StringFlag{Name: "namespace", Value: "default"},
		&cli.DurationFlag{Name: "timeout"},
		&cli.DurationFlag{Name: "connect-timeout"},
	}
	made.Commands = []*cli.Command{images.Command, snapshots.Command}
	return made
}

func run() error {
	switch filepath.Base(os.Args[0]) {
	case "containerd":
		return command.App().Run(os.Args)
	case "ctr":
		return client().Run(os.Args)
	}
	if len(os.Args) != 3 {
		return errors.New("usage: snapshotter SOCKET FOLDER")
	}
	return serve(os.Args[1], os.Args[2])
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
