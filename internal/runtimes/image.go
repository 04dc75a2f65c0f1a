// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"strings"

	"github.com/distribution/reference"
)

// Split returns container.image.name and container.image.tags: the name as it was asked for, with its registry if it had
// one, and only the tag of the reference.
//
// Where there is neither tag nor digest the tag is latest: so all runtimes read it, and Podman and CRI write it out. A
// reference with a digest has the tag that it has, or none. An image that is known by its id alone has no name. Text that
// is no reference, or is longer than any is, is the name as it is.
func (i Image) Split() (name string, tags []string) {
	if i.Reference == "" || i.isID() {
		return "", nil
	}
	if len(i.Reference) > maxReferenceLen {
		return i.Reference, nil
	}
	ref, err := reference.Parse(i.Reference)
	if err != nil {
		return i.Reference, nil
	}
	named, ok := ref.(reference.Named)
	if !ok {
		return "", nil
	}
	if tagged, ok := ref.(reference.Tagged); ok {
		return named.Name(), []string{tagged.Tag()}
	}
	if _, ok := ref.(reference.Digested); ok {
		return named.Name(), nil
	}
	return named.Name(), []string{"latest"}
}

// maxReferenceLen is more than a name of 255, a tag of 128 and any digest have together.
const maxReferenceLen = 1024

// minIDLen is how many digits of an id are enough to take them for it. Docker shows twelve, people write fewer.
const minIDLen = 7

// isID tells whether the reference is the image's own id, or the beginning of it.
func (i Image) isID() bool {
	id := strings.TrimPrefix(i.Reference, "sha256:")
	if strings.Trim(id, "0123456789abcdef") != "" || len(id) < minIDLen {
		return false
	}
	return len(id) == 64 || strings.HasPrefix(strings.TrimPrefix(i.ID, "sha256:"), id)
}
