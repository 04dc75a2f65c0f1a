// SPDX-License-Identifier: Apache-2.0

package mounts

import "strings"

// kind is what is known of a file system by its type.
type kind uint8

const (
	kindNone    kind = iota // never counts
	kindBlock               // on a block device
	kindOverlay             // on the file system of its upper directory
	kindPool                // on devices of its own that it does not name
	kindNetwork             // elsewhere, or answered by a program: may not answer
	kindMemory
)

// kinds of file systems by type. Those that are not here are on a block device if they have its number or name, and
// otherwise answered by something else.
var kinds = map[string]kind{
	"overlay": kindOverlay,
	"zfs":     kindPool,
	"tmpfs":   kindMemory,
	"ramfs":   kindMemory,

	// Hold no files of their own, or none that are written. LXCFS stands before files of /proc.
	"anon_inodefs": kindNone, "autofs": kindNone, "bdev": kindNone, "binder": kindNone, "binfmt_misc": kindNone, "bpf": kindNone,
	"cgroup": kindNone, "cgroup2": kindNone, "configfs": kindNone, "cpuset": kindNone, "dax": kindNone, "debugfs": kindNone,
	"devfs": kindNone, "devpts": kindNone, "devtmpfs": kindNone, "dmabuf": kindNone, "drm": kindNone, "efivarfs": kindNone,
	"functionfs": kindNone, "fuse.gvfsd-fuse": kindNone, "fuse.lxcfs": kindNone, "fuse.portal": kindNone,
	"fuse.snapfuse": kindNone, "fuse.squashfuse": kindNone, "fusectl": kindNone, "gadgetfs": kindNone, "guest_memfd": kindNone,
	"hugetlbfs": kindNone, "ipathfs": kindNone, "mqueue": kindNone, "nfsd": kindNone, "nsfs": kindNone, "nullfs": kindNone,
	"openpromfs": kindNone, "oprofilefs": kindNone, "pidfs": kindNone, "pipefs": kindNone, "proc": kindNone, "pstore": kindNone,
	"resctrl": kindNone, "rootfs": kindNone, "rpc_pipefs": kindNone, "secretmem": kindNone, "securityfs": kindNone,
	"selinuxfs": kindNone, "smackfs": kindNone, "sockfs": kindNone, "spufs": kindNone, "sysfs": kindNone, "tracefs": kindNone,
	"usbfs": kindNone, "usbdevfs": kindNone, "xenfs": kindNone, "none": kindNone,
	// Cannot be written at all.
	"cramfs": kindNone, "erofs": kindNone, "iso9660": kindNone, "romfs": kindNone, "squashfs": kindNone,

	"9p": kindNetwork, "afs": kindNetwork, "beegfs": kindNetwork, "ceph": kindNetwork, "cifs": kindNetwork, "coda": kindNetwork,
	"davfs": kindNetwork, "glusterfs": kindNetwork, "gpfs": kindNetwork, "lustre": kindNetwork, "ncpfs": kindNetwork,
	"nfs": kindNetwork, "nfs3": kindNetwork, "nfs4": kindNetwork, "orangefs": kindNetwork, "prl_fs": kindNetwork,
	"pvfs2": kindNetwork, "smb3": kindNetwork, "smbfs": kindNetwork, "vboxsf": kindNetwork, "virtiofs": kindNetwork,
	"vmhgfs": kindNetwork, "wekafs": kindNetwork, "fuse": kindNetwork,
}

func kindOf(e *entry) kind {
	if k, known := kinds[e.fsType]; known {
		return k
	}
	switch {
	case strings.HasPrefix(e.fsType, "fuse."):
		return kindNetwork
	case e.number.Major != 0, strings.HasPrefix(e.source, "/dev/"):
		return kindBlock
	default:
		return kindNetwork
	}
}

// mayHang tells of file systems that wait for somebody else's answer.
func mayHang(fsType string) bool {
	return kinds[fsType] == kindNetwork || strings.HasPrefix(fsType, "fuse")
}
