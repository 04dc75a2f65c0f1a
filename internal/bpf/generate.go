// SPDX-License-Identifier: Apache-2.0

package bpf

// mcpu v3 brings 32-bit and compare-and-exchange atomics: Linux 5.12.
//go:generate go tool -modfile=../tools/go.mod bpf2go -go-package bpf -cc clang-19 -strip llvm-strip-19 -target bpfel -type edge_key -type edge_kind -type edge -type listener -type live_rtt -type flow -type endpoint -type translation -type tcp_stat tcp src/tcp.bpf.c -- -mcpu=v3 -Wall -Wextra -Werror -Wpadded -Wno-unused-parameter -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu
//go:generate go tool -modfile=../tools/go.mod bpf2go -go-package bpf -cc clang-19 -strip llvm-strip-19 -target bpfel -type cgroup_event -type cgroup_event_kind cgroup src/cgroup.bpf.c -- -mcpu=v3 -Wall -Wextra -Werror -Wpadded -Wno-unused-parameter -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu
//go:generate go tool -modfile=../tools/go.mod bpf2go -go-package bpf -cc clang-19 -strip llvm-strip-19 -target bpfel -type usage -type exit_reason -type task_stat -type exit_event task src/task.bpf.c -- -mcpu=v3 -Wall -Wextra -Werror -Wpadded -Wno-unused-parameter -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu
//go:generate go tool -modfile=../tools/go.mod bpf2go -go-package bpf -cc clang-19 -strip llvm-strip-19 -target bpfel -type owner -type disk_key -type disk_io -type io_stat io src/io.bpf.c -- -mcpu=v3 -Wall -Wextra -Werror -Wpadded -Wno-unused-parameter -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu
//go:generate go tool -modfile=../tools/go.mod bpf2go -go-package bpf -cc clang-19 -strip llvm-strip-19 -target bpfel -type file_write file src/file.bpf.c -- -mcpu=v3 -Wall -Wextra -Werror -Wpadded -Wno-unused-parameter -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu
