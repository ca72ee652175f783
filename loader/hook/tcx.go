// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

func (a *Attachment) tcxType() ebpf.AttachType {
	if a.Kind == TCXOut {
		return ebpf.AttachTCXEgress
	}
	return ebpf.AttachTCXIngress
}

// attachTCX attaches before the programs of others.
func (a *Attachment) attachTCX(prog *ebpf.Program) (link.Link, error) {
	return link.AttachTCX(link.TCXOptions{Program: prog, Interface: a.Index, Attach: a.tcxType(), Anchor: link.Head()})
}

// tcxPrograms returns the programs at the attachment's hook in the order in which they run, and none where the kernel
// has no TCX (before Linux 6.6).
func (a *Attachment) tcxPrograms() (ids []ebpf.ProgramID, err error) {
	list, err := link.QueryPrograms(link.QueryOptions{Target: a.Index, Attach: a.tcxType()})
	if errors.Is(err, link.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: list TCX programs: %w", a.Interface, err)
	}
	for _, prog := range list.Programs {
		ids = append(ids, prog.ID)
	}
	return ids, nil
}
