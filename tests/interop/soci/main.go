// SOCI's own packages behind a small command line, for the interop tests and the benchmarks: ztocs
// are built as its tools build them, and read as its snapshotter reads them. Every command prints
// one JSON value.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"time"

	"github.com/awslabs/soci-snapshotter/cache"
	"github.com/awslabs/soci-snapshotter/fs/reader"
	spanmanager "github.com/awslabs/soci-snapshotter/fs/span-manager"
	"github.com/awslabs/soci-snapshotter/metadata"
	"github.com/awslabs/soci-snapshotter/ztoc"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// build makes the ztoc of a layer: build KIND LAYER SPAN OUT, KIND being gzip or uncompressed.
func build(args []string) (any, error) {
	if len(args) != 4 {
		return nil, errors.New("usage: build gzip|uncompressed LAYER SPAN OUT")
	}
	span, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	z, err := ztoc.NewBuilder("reference").BuildZtoc(args[1], span, ztoc.WithCompression(args[0]))
	if err != nil {
		return nil, err
	}
	r, described, err := ztoc.Marshal(z)
	if err != nil {
		return nil, err
	}
	blob, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(args[3], blob, 0o644); err != nil {
		return nil, err
	}
	return map[string]any{
		"digest": described.Digest.String(), "spans": int(z.MaxSpanID) + 1,
		"entries": len(z.FileMetadata), "seconds": time.Since(start).Seconds(),
	}, nil
}

func open(layer, index string) (*io.SectionReader, *ztoc.Ztoc, error) {
	f, err := os.Open(layer)
	if err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	blob, err := os.ReadFile(index)
	if err != nil {
		return nil, nil, err
	}
	z, err := ztoc.Unmarshal(bytes.NewReader(blob))
	return io.NewSectionReader(f, 0, st.Size()), z, err
}

// read reads every file of a layer through its ztoc, as the snapshotter does, which compares
// each one's tar header and each span's digest: of each its sha256, or why not.
func read(args []string) (any, error) {
	if len(args) != 2 {
		return nil, errors.New("usage: read LAYER ZTOC")
	}
	layer, z, err := open(args[0], args[1])
	if err != nil {
		return nil, err
	}
	entries := len(z.FileMetadata)
	dir, err := os.MkdirTemp("", "soci")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	db, err := bolt.Open(filepath.Join(dir, "metadata.db"), 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		return nil, err
	}
	m, err := metadata.NewReader(db, layer, z.TOC)
	if err != nil {
		return nil, err
	}
	spans, err := spanmanager.New(z, layer, cache.NewMemoryCache(), 0, digest.FromString("layer"))
	if err != nil {
		return nil, err
	}
	r, err := reader.NewReader(m, digest.FromString("layer"), spans, false)
	if err != nil {
		return nil, err
	}
	files, failed := map[string]string{}, map[string]string{}
	one := func(name string, id uint32) error {
		attr, err := m.GetAttr(id)
		if err != nil {
			return err
		}
		f, err := r.OpenFile(id)
		if err != nil {
			return err
		}
		content := make([]byte, attr.Size)
		n, err := f.ReadAt(content, 0)
		if err != nil && !(errors.Is(err, io.EOF) && int64(n) == attr.Size) {
			return err
		}
		sum := sha256.Sum256(content[:n])
		files[name] = hex.EncodeToString(sum[:])
		return nil
	}
	kinds := map[string]string{}
	var walk func(id uint32, dir string) error
	walk = func(id uint32, dir string) error {
		type child struct {
			id   uint32
			mode os.FileMode
		}
		children := map[string]child{}
		err := m.ForeachChild(id, func(name string, id uint32, mode os.FileMode) bool {
			children[name] = child{id, mode}
			return true
		})
		for name, c := range children {
			if name == "." { // of an entry "./": the root, in itself
				continue
			}
			name = path.Join(dir, name)
			kinds[name] = c.mode.String()
			if c.mode.IsDir() {
				err = errors.Join(err, walk(c.id, name))
			} else if c.mode.IsRegular() {
				if bad := one(name, c.id); bad != nil {
					failed[name] = bad.Error()
				}
			}
		}
		return err
	}
	if err := walk(m.RootID(), ""); err != nil {
		return nil, err
	}
	return map[string]any{
		"files": files, "failed": failed, "kinds": kinds, "entries": entries,
	}, nil
}

// extract reads files by their names in the tar, with the ztoc package alone: extract LAYER ZTOC NAME...
func extract(args []string) (any, error) {
	if len(args) < 2 {
		return nil, errors.New("usage: extract LAYER ZTOC NAME...")
	}
	layer, z, err := open(args[0], args[1])
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, name := range args[2:] {
		content, err := z.ExtractFile(layer, name)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(content)
		files[name] = hex.EncodeToString(sum[:])
	}
	return files, nil
}

// again parses documents by image-spec's structs and writes them anew, as the snapshotter does
// with a SOCI index before it stores it: again manifest|index FILE...
func again(args []string) (any, error) {
	if len(args) < 1 || (args[0] != "manifest" && args[0] != "index") {
		return nil, errors.New("usage: again manifest|index FILE...")
	}
	written := []string{}
	for _, name := range args[1:] {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var document any = &ocispec.Manifest{}
		if args[0] == "index" {
			document = &ocispec.Index{}
		}
		if err := json.Unmarshal(data, document); err != nil {
			return nil, err
		}
		anew, err := json.Marshal(document)
		if err != nil {
			return nil, err
		}
		written = append(written, string(anew))
	}
	return written, nil
}

func main() {
	commands := map[string]func([]string) (any, error){
		"build": build, "read": read, "extract": extract, "again": again,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: soci build|read|extract|again ...")
		os.Exit(2)
	}
	value, err := commands[os.Args[1]](os.Args[2:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(value)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soci:", err)
		os.Exit(1)
	}
}
