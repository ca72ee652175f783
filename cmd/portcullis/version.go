// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

type versionView struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	Kernel  string `json:"kernel"`
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the versions of portcullis, Go and the kernel",
		GroupID: "more",
		Args:    noArguments,
		RunE: func(*cobra.Command, []string) error {
			v := versionView{version, runtime.Version(), kernelRelease()}
			return a.print(v, func() { a.printf("portcullis %s (%s, Linux %s)\n", v.Version, v.Go, v.Kernel) })
		},
	}
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
