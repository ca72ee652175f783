// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/savefile"
)

// looked is the list files that a follower has read to compare them, each as it was then. What has not been touched since
// need not be read again: a list may have a million lines, and is looked at every minute.
type looked map[string]lookedFile

type lookedFile struct {
	identity fileIdentity
	digest   string
}

// fileIdentity tells a file from another one, and from what it becomes when somebody writes to it.
type fileIdentity struct {
	device, inode   uint64
	size            int64
	written, change unix.Timespec
}

// settled is after how long a file that is written once more has another time than before, on any filesystem.
const settled = 2 * time.Second

// digest returns that of what a list file holds, as read returns it, or of why it cannot be used.
func (l looked) digest(path string, read func(path string) ([]byte, error)) string {
	before, err := identify(path)
	if have, ok := l[path]; ok && err == nil && have.identity == before {
		return have.digest
	}
	delete(l, path)
	now := time.Now()
	text, failed := read(path)
	if failed != nil {
		return digest([]byte(failed.Error()))
	}
	sum := digest(text)
	after, failed := identify(path)
	if err == nil && failed == nil && before == after && now.Sub(time.Unix(after.change.Unix())) > settled {
		l[path] = lookedFile{after, sum}
	}
	return sum
}

// identify returns which file a path leads to, if nobody else can change that.
func identify(path string) (fileIdentity, error) {
	if err := savefile.Check(path); err != nil {
		return fileIdentity{}, err
	}
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return fileIdentity{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}, err
}
