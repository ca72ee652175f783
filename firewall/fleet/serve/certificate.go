// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/savefile"
)

// Authority is a certificate authority that a server has made for itself, in a hidden folder beside the keys.
type Authority struct {
	folder      string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// Where clocks are wrong by years a certificate is to hold all the same.
var (
	notBefore = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(2099, 12, 31, 0, 0, 0, 0, time.UTC)
)

// AuthorityPath returns the file of the certificate that hosts are to trust.
func AuthorityPath(root string) string { return filepath.Join(root, ".serve", "ca.crt") }

// OpenAuthority returns the authority of a folder, which is made if there is none.
func OpenAuthority(root string) (*Authority, error) {
	a := &Authority{folder: filepath.Dir(AuthorityPath(root))}
	pair, err := tls.LoadX509KeyPair(a.path("ca.crt"), a.path("ca.key"))
	if errors.Is(err, fs.ErrNotExist) {
		return a, a.make()
	}
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s is not a key that this server has made", a.path("ca.key"))
	}
	a.certificate, a.key = pair.Leaf, key
	return a, nil
}

func (a *Authority) path(name string) string { return filepath.Join(a.folder, name) }

func (a *Authority) make() error {
	if err := os.MkdirAll(a.folder, 0o700); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: "portcullis fleet"}, NotBefore: notBefore, NotAfter: notAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	a.key = key
	return save(a.path("ca.crt"), a.path("ca.key"), der, key)
}

func serial() *big.Int {
	n, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	return n
}

// save writes a certificate and its key, the key first.
func save(certificate, private string, der []byte, key *ecdsa.PrivateKey) error {
	bytes, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := savefile.SavePrivate(private, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: bytes})); err != nil {
		return err
	}
	return savefile.Save(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func (a *Authority) sign(template *x509.Certificate) ([]byte, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = serial(), notBefore, notAfter
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	return der, key, err
}

// Server returns a certificate for this machine, by its names and addresses.
func (a *Authority) Server(names ...string) (tls.Certificate, error) {
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "server"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, DNSNames: []string{"localhost"}}
	if host, err := os.Hostname(); err == nil {
		names = append(names, host)
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return tls.Certificate{}, err
	}
	for _, address := range addresses {
		if n, ok := address.(*net.IPNet); ok {
			template.IPAddresses = append(template.IPAddresses, n.IP)
		}
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if name != "" {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, key, err := a.sign(template)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// Issue writes a certificate for a host or a publisher, NAME.crt and NAME.key.
func (a *Authority) Issue(name, folder string) error {
	if err := fleet.CheckHost(name); err != nil {
		return err
	}
	certificate, private := filepath.Join(folder, name+".crt"), filepath.Join(folder, name+".key")
	for _, file := range []string{certificate, private} {
		if _, err := os.Lstat(file); err == nil {
			return fmt.Errorf("%s is there already", file)
		}
	}
	der, key, err := a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return err
	}
	return save(certificate, private, der, key)
}

// Pool returns the authority as those whose signatures count.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}
