// SPDX-License-Identifier: Apache-2.0

//go:build linux

package k8s

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"runtime"
)

// image is a container image with one static program.
type image struct {
	name    string
	program string // on the host
	path    string // in the image
	command []string
}

// write writes the image to a file, in the form of `docker save`.
func (i image) write(file string) error {
	program, err := os.ReadFile(i.program)
	if err != nil {
		return err
	}
	layer := file + ".layer"
	if err := writeTar(layer, 0o755, map[string][]byte{i.path: program}); err != nil {
		return err
	}
	b, err := os.ReadFile(layer)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	config, err1 := json.Marshal(object{
		"architecture": runtime.GOARCH, "os": "linux", "config": object{"Entrypoint": i.command},
		"rootfs": object{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}},
	})
	manifest, err2 := json.Marshal([]object{{"Config": "config.json", "RepoTags": []string{i.name}, "Layers": []string{"layer.tar"}}})
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	return writeTar(file, 0o644, map[string][]byte{"config.json": config, "layer.tar": b, "manifest.json": manifest})
}

func writeTar(file string, mode int64, files map[string][]byte) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	w := tar.NewWriter(f)
	for name, content := range files {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content))}))
		_, werr := w.Write(content)
		err = errors.Join(err, werr)
	}
	return errors.Join(err, w.Close(), f.Close())
}
