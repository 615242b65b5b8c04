// The reference implementation behind a small command line, for the interop tests and the
// benchmarks. Every command prints one JSON value.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
	digest "github.com/opencontainers/go-digest"
)

type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

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

// build makes an eStargz blob from a tar or tar.gz.
func build(args []string) (any, error) {
	fs := flag.NewFlagSet("build", flag.ExitOnError)
	level := fs.Int("level", 9, "gzip level")
	chunk := fs.Int("chunk-size", 0, "chunk size, 0 for the default")
	minChunk := fs.Int("min-chunk-size", 0, "minimum chunk size")
	workers := fs.Int("workers", 0, "workers, 0 for the default")
	lossless := fs.Bool("lossless", false, "keep the tar's bytes; SRC is a plain tar")
	var prioritized list
	fs.Var(&prioritized, "prioritize", "prioritized file; may be repeated")
	fs.Parse(args)
	if fs.NArg() != 2 {
		return nil, errors.New("usage: build [options] SRC DST")
	}
	start := time.Now()
	src, err := section(fs.Arg(0))
	if err != nil {
		return nil, err
	}
	dst, err := os.Create(fs.Arg(1))
	if err != nil {
		return nil, err
	}
	var size int64
	var diffID, tocDigest string
	if *lossless {
		w := estargz.NewWriterLevel(dst, *level)
		w.ChunkSize = *chunk
		if err := w.AppendTarLossLess(src); err != nil {
			return nil, err
		}
		d, err := w.Close()
		if err != nil {
			return nil, err
		}
		if size, err = dst.Seek(0, io.SeekEnd); err != nil {
			return nil, err
		}
		diffID, tocDigest = w.DiffID(), d.String()
	} else {
		options := []estargz.Option{
			estargz.WithCompressionLevel(*level), estargz.WithChunkSize(*chunk),
			estargz.WithPrioritizedFiles(prioritized),
		}
		newer, err := newerOptions(*minChunk, *workers)
		if err != nil {
			return nil, err
		}
		blob, err := estargz.Build(src, append(options, newer...)...)
		if err != nil {
			return nil, err
		}
		if size, err = io.Copy(dst, blob); err != nil {
			return nil, err
		}
		if err := blob.Close(); err != nil {
			return nil, err
		}
		diffID, tocDigest = blob.DiffID().String(), blob.TOCDigest().String()
	}
	if err := dst.Close(); err != nil {
		return nil, err
	}
	return map[string]any{
		"size": size, "diff_id": diffID, "toc_digest": tocDigest,
		"seconds": time.Since(start).Seconds(),
	}, nil
}

// readFile reads a file chunk by chunk, each checked against its chunkDigest if v is given.
func readFile(r *estargz.Reader, v estargz.TOCEntryVerifier, e *estargz.TOCEntry) (string, error) {
	sum := sha256.New()
	if e.Size == 0 {
		return hex.EncodeToString(sum.Sum(nil)), nil
	}
	file, err := r.OpenFile(e.Name)
	if err != nil {
		return "", err
	}
	for at := int64(0); at < e.Size; {
		chunk, ok := r.ChunkEntryForOffset(e.Name, at)
		if !ok || chunk.ChunkSize <= 0 {
			return "", fmt.Errorf("%s: no chunk at %d", e.Name, at)
		}
		data := make([]byte, chunk.ChunkSize)
		if n, err := file.ReadAt(data, at); n != len(data) {
			return "", fmt.Errorf("%s: read %d of %d bytes at %d: %v", e.Name, n, len(data), at, err)
		}
		if v != nil {
			check, err := v.Verifier(chunk)
			if err != nil {
				return "", err
			}
			check.Write(data)
			if !check.Verified() {
				return "", fmt.Errorf("%s: chunk at %d fails its digest", e.Name, at)
			}
		}
		sum.Write(data)
		at += chunk.ChunkSize
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// verify opens a blob, verifies its TOC if a digest is given, and reads every file.
func verify(args []string) (any, error) {
	fs := flag.NewFlagSet("verify", flag.ExitOnError)
	tocDigest := fs.String("toc-digest", "", "verify the TOC and every chunk against it")
	fs.Parse(args)
	if fs.NArg() != 1 {
		return nil, errors.New("usage: verify [-toc-digest D] BLOB")
	}
	src, err := section(fs.Arg(0))
	if err != nil {
		return nil, err
	}
	r, err := estargz.Open(src)
	if err != nil {
		return nil, err
	}
	var v estargz.TOCEntryVerifier
	if *tocDigest != "" {
		if v, err = r.VerifyTOC(digest.Digest(*tocDigest)); err != nil {
			return nil, err
		}
	}
	root, ok := r.Lookup("")
	if !ok {
		return nil, errors.New("no root directory")
	}
	files, kinds := map[string]string{}, map[string]string{}
	var walk func(dir string, e *estargz.TOCEntry) error
	walk = func(dir string, e *estargz.TOCEntry) (err error) {
		e.ForeachChild(func(base string, child *estargz.TOCEntry) bool {
			name := path.Join(dir, base)
			kinds[name] = child.Type
			switch child.Type {
			case "reg":
				files[name], err = readFile(r, v, child)
			case "dir":
				err = walk(name, child)
			}
			return err == nil
		})
		return err
	}
	if err := walk("", root); err != nil {
		return nil, err
	}
	return map[string]any{
		"toc_digest": r.TOCDigest().String(), "files": files, "kinds": kinds,
	}, nil
}

// each verifies many blobs: of each its result, or {"error": why not}.
func each(args []string) (any, error) {
	found := map[string]any{}
	for _, name := range args {
		value, err := verify([]string{name})
		if err != nil {
			value = map[string]any{"error": err.Error()}
		}
		found[name] = value
	}
	return found, nil
}

// open times opening a blob up to the first look-up.
func open(args []string) (any, error) {
	fs := flag.NewFlagSet("open", flag.ExitOnError)
	rounds := fs.Int("n", 1, "rounds")
	fs.Parse(args)
	if fs.NArg() != 2 {
		return nil, errors.New("usage: open [-n N] BLOB NAME")
	}
	var seconds []float64
	for i := 0; i < *rounds; i++ {
		start := time.Now()
		src, err := section(fs.Arg(0))
		if err != nil {
			return nil, err
		}
		r, err := estargz.Open(src)
		if err != nil {
			return nil, err
		}
		if _, ok := r.Lookup(fs.Arg(1)); !ok {
			return nil, fmt.Errorf("%s: not found", fs.Arg(1))
		}
		seconds = append(seconds, time.Since(start).Seconds())
	}
	return map[string]any{"seconds": seconds}, nil
}

func main() {
	commands := map[string]func([]string) (any, error){
		"build": build, "verify": verify, "each": each, "open": open,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: reference build|verify|each|open ...")
		os.Exit(2)
	}
	value, err := commands[os.Args[1]](os.Args[2:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(value)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}
