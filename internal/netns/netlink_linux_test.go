// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"encoding/binary"
	"errors"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// netlinkMessage makes one message of the request 1.
func netlinkMessage(typ, flags uint16, body ...byte) []byte {
	ne := binary.NativeEndian
	b := ne.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	b = ne.AppendUint16(b, typ)
	b = ne.AppendUint16(b, flags)
	b = ne.AppendUint32(b, 1)
	return append(ne.AppendUint32(b, 0), body...)
}

func int32Bytes(n int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(n)) }

func join(parts ...[]byte) (all []byte) {
	for _, part := range parts {
		all = append(all, part...)
	}
	return all
}

func TestEachAnswer(t *testing.T) {
	other := netlinkMessage(unix.NLMSG_ERROR, 0, int32Bytes(-1)...)
	binary.NativeEndian.PutUint32(other[8:], 2)
	for _, tt := range []struct {
		name    string
		in      []byte
		want    []string
		more    bool
		wantErr error
	}{
		{name: "empty", more: true},
		{name: "one answer", in: netlinkMessage(20, 0, 'a', 'b', 'c', 'd'), want: []string{"abcd"}},
		{
			name: "padding between messages", more: true, want: []string{"abc", "d"},
			in: join(netlinkMessage(20, unix.NLM_F_MULTI, 'a', 'b', 'c'), []byte{0}, netlinkMessage(20, unix.NLM_F_MULTI, 'd')),
		},
		{
			name: "dump cut off", wantErr: errTruncated, want: []string{"abcd"},
			in: join(netlinkMessage(20, unix.NLM_F_MULTI, 'a', 'b', 'c', 'd'), netlinkMessage(20, unix.NLM_F_MULTI, 'd')[:9]),
		},
		{
			name: "end of a dump", want: []string{"abcd"},
			in: join(netlinkMessage(20, unix.NLM_F_MULTI, 'a', 'b', 'c', 'd'),
				netlinkMessage(unix.NLMSG_DONE, unix.NLM_F_MULTI, int32Bytes(0)...)),
		},
		{name: "more of a dump", in: netlinkMessage(20, unix.NLM_F_MULTI, 'a'), want: []string{"a"}, more: true},
		{
			name: "dump ends with an error", wantErr: unix.EINVAL,
			in: netlinkMessage(unix.NLMSG_DONE, unix.NLM_F_MULTI, int32Bytes(-int32(unix.EINVAL))...),
		},
		{name: "done before 4.15", in: netlinkMessage(unix.NLMSG_DONE, unix.NLM_F_MULTI)},
		{name: "error", in: netlinkMessage(unix.NLMSG_ERROR, 0, int32Bytes(-int32(unix.EPERM))...), wantErr: unix.EPERM},
		{name: "acknowledgement", in: netlinkMessage(unix.NLMSG_ERROR, 0, int32Bytes(0)...)},
		{name: "short error", in: netlinkMessage(unix.NLMSG_ERROR, 0, 1), wantErr: errTruncated},
		{name: "not ours", in: other, more: true},
		{name: "short header", in: make([]byte, 15), wantErr: errTruncated},
		{name: "longer than it is", in: netlinkMessage(20, 0, 'a', 'b')[:17], wantErr: errTruncated},
		{name: "shorter than its header", in: make([]byte, 16), wantErr: errTruncated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			more, err := eachAnswer(tt.in, 1, func(body []byte) error {
				got = append(got, string(body))
				return nil
			})
			if !errors.Is(err, tt.wantErr) {
				t.Errorf("error %v, want %v", err, tt.wantErr)
			}
			if more != tt.more {
				t.Errorf("more: %v", more)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnswerErrorOfOddNumber(t *testing.T) {
	var errno syscall.Errno
	for _, code := range []int32{1, -1 << 31, -4096} {
		if err := answerError(unix.NLMSG_ERROR, int32Bytes(code)); err == nil || errors.As(err, &errno) {
			t.Errorf("%d: got %v", code, err)
		}
	}
}

func FuzzEachAnswer(f *testing.F) {
	f.Add(netlinkMessage(20, unix.NLM_F_MULTI, 'a', 'b'))
	f.Add(netlinkMessage(unix.NLMSG_ERROR, 0, int32Bytes(-1)...))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = eachAnswer(b, 1, func(body []byte) error {
			parseTranslation(body)
			return nil
		})
	})
}
