// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ebpfcontainer/ebpfcontainer/internal/logpatterns"
)

// restore takes in the state of a file. A file that is not there yet is no error.
func restore(miner *logpatterns.Miner, name string) error {
	saved, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := miner.Restore(saved); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// save replaces the file in one step: it has the old state or the new one, whatever happens.
func save(miner *logpatterns.Miner, name string) (err error) {
	state, err := miner.Save()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	file, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			file.Close()
			_ = os.Remove(file.Name())
		}
	}()
	if _, err := file.Write(state); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), name)
}
