// SPDX-License-Identifier: Apache-2.0

package publish

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Source is what a bundle is made of: a policy file, and what the settings name beside it.
type Source struct {
	bundle fleet.Bundle
	lists  map[string][]byte // by digest
}

// ReadSource reads a policy file and the settings of its group, if there are any.
func ReadSource(policyFile, settingsFile string) (*Source, error) {
	s := &Source{lists: make(map[string][]byte)}
	text, err := policy.ReadFile(policyFile)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	s.bundle.Policy = string(text)
	layers := map[string]string{policyFile: s.bundle.Policy}
	if settingsFile != "" {
		settings, err := fleet.ReadGroupFile(settingsFile)
		if err != nil {
			return nil, err
		}
		s.bundle.Settings = settings.Settings()
		if settings.Layer != "" {
			if text, err = policy.ReadFile(settings.Layer); err != nil {
				return nil, fmt.Errorf("%s: layer: %w", settingsFile, err)
			}
			s.bundle.Layer = string(text)
			layers[settings.Layer] = s.bundle.Layer
		}
		if settings.Hosts != "" {
			if err := s.readHosts(settings.Hosts, layers); err != nil {
				return nil, fmt.Errorf("%s: hosts: %w", settingsFile, err)
			}
		}
	}
	for file, text := range layers {
		if err := s.readLists(file, text); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// readHosts reads a folder with a layer for each host, h1.yaml for h1.
func (s *Source) readHosts(folder string, layers map[string]string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	s.bundle.Hosts = make(map[string]string)
	for _, e := range entries {
		name, isLayer := strings.CutSuffix(e.Name(), ".yaml")
		if !isLayer || strings.HasPrefix(name, ".") {
			continue
		}
		file := filepath.Join(folder, e.Name())
		if err := fleet.CheckHost(name); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		text, err := policy.ReadFile(file)
		if err != nil {
			return err
		}
		s.bundle.Hosts[name] = string(text)
		layers[file] = string(text)
	}
	return nil
}

// readLists reads the lists that a layer names by files beside it. One that has an absolute path is the host's.
func (s *Source) readLists(file, text string) error {
	names, err := fleet.ListFiles(file, text)
	if err != nil {
		return err
	}
	for _, name := range names {
		if filepath.IsAbs(name) {
			continue
		}
		path := filepath.Join(filepath.Dir(file), name)
		list, err := policy.ReadListFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: the list %w", file, err)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if len(list) > store.MaxSize {
			return fmt.Errorf("%s: the list %s has %d bytes: %w; give it a URL, or split it", file, path, len(list), store.ErrTooLarge)
		}
		digest := fleet.Digest(list)
		if had, ok := s.bundle.Lists[name]; ok && had != digest {
			return fmt.Errorf("%s: two lists are called %s: give one another name", file, name)
		}
		if s.bundle.Lists == nil {
			s.bundle.Lists = make(map[string]string)
		}
		s.bundle.Lists[name], s.lists[digest] = digest, list
	}
	return nil
}
