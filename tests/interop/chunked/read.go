package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/externaltoc"
	"github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	digest "github.com/opencontainers/go-digest"
)

// content reads a file chunk by chunk, each checked against its chunkDigest.
func content(r *estargz.Reader, v estargz.TOCEntryVerifier, e *estargz.TOCEntry) (string, int, error) {
	sum, chunks := sha256.New(), 0
	if e.Size == 0 {
		return hex.EncodeToString(sum.Sum(nil)), 0, nil
	}
	file, err := r.OpenFile(e.Name)
	if err != nil {
		return "", 0, err
	}
	for at := int64(0); at < e.Size; chunks++ {
		chunk, ok := r.ChunkEntryForOffset(e.Name, at)
		if !ok || chunk.ChunkSize <= 0 {
			return "", 0, fmt.Errorf("%s: no chunk at %d", e.Name, at)
		}
		data := make([]byte, chunk.ChunkSize)
		if n, err := file.ReadAt(data, at); n != len(data) {
			return "", 0, fmt.Errorf("%s: %d of %d bytes at %d: %v", e.Name, n, len(data), at, err)
		}
		check, err := v.Verifier(chunk)
		if err != nil {
			return "", 0, err
		}
		check.Write(data)
		if !check.Verified() {
			return "", 0, fmt.Errorf("%s: the chunk at %d fails its digest", e.Name, at)
		}
		sum.Write(data)
		at += chunk.ChunkSize
	}
	return hex.EncodeToString(sum.Sum(nil)), chunks, nil
}

// read verifies the TOC, and reads every file with the snapshotter's package: read [-toc FILE] BLOB DIGEST.
// Prints the files' sha256, what every name is, and how many chunks there are.
func read(args []string) (any, error) {
	flags := flag.NewFlagSet("read", flag.ExitOnError)
	toc := flags.String("toc", "", "the file of an external TOC; without it the blob is zstd:chunked")
	flags.Parse(args)
	if flags.NArg() != 2 {
		return nil, errors.New("usage: read [-toc FILE] BLOB DIGEST")
	}
	src, err := section(flags.Arg(0))
	if err != nil {
		return nil, err
	}
	option := estargz.WithDecompressors(&zstdchunked.Decompressor{})
	if *toc != "" {
		provide := func() ([]byte, error) { return os.ReadFile(*toc) }
		option = estargz.WithDecompressors(externaltoc.NewGzipDecompressor(provide))
	}
	r, err := estargz.Open(src, option)
	if err != nil {
		return nil, err
	}
	v, err := r.VerifyTOC(digest.Digest(flags.Arg(1)))
	if err != nil {
		return nil, err
	}
	root, ok := r.Lookup("")
	if !ok {
		return nil, errors.New("no root directory")
	}
	files, kinds := map[string]string{}, map[string]string{}
	chunks := map[*estargz.TOCEntry]int{} // by file, which may have several names
	var walk func(dir string, e *estargz.TOCEntry) error
	walk = func(dir string, e *estargz.TOCEntry) (err error) {
		e.ForeachChild(func(base string, child *estargz.TOCEntry) bool {
			name := path.Join(dir, base)
			kinds[name] = child.Type
			switch child.Type {
			case "reg":
				files[name], chunks[child], err = content(r, v, child)
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
	total := 0
	for _, n := range chunks {
		total += n
	}
	return map[string]any{"files": files, "kinds": kinds, "chunks": total}, nil
}
