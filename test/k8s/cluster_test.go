// SPDX-License-Identifier: Apache-2.0

//go:build linux

package k8s

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	imagePause     = "registry.k8s.io/pause:3.10"
	imageApp       = "registry.example/team/app:1.2"
	imageCollector = "docker.io/library/otelcol-custom:0.1.0" // as the DaemonSet has it
)

// cluster is a Kubernetes of one node, without the scheduler and the controllers: pods name their node themselves.
type cluster struct {
	*node
	programs string // where its programs are, see run.sh
	admin    string // kubeconfig of somebody who may do everything
}

// startCluster starts all parts and waits until the node is registered.
func startCluster(t *testing.T, programs, collector string) *cluster {
	t.Helper()
	c := &cluster{node: makeNode(t), programs: programs}
	api := c.startAPI(t)
	c.admin = c.writeKubeconfig(t, "admin", "admin")
	c.startContainerd(t, collector)
	eventually(t, 60*time.Second, "API server is ready", func() error {
		if err := api.running(); err != nil {
			t.Fatal(err)
		}
		_, err := c.kubectl("get", "--raw", "/readyz")
		return err
	})

	config := c.write(t, "kubelet.yaml", testdata(t, "kubelet.yaml")+"cgroupRoot: "+c.cgroup+"\n")
	kubelet := start(t, "kubelet", c.command(filepath.Join(programs, "kubelet"), "--config", config,
		"--kubeconfig", c.writeKubeconfig(t, "kubelet", "kubelet"), "--hostname-override", nodeName, "--node-ip", nodeIP))
	eventually(t, 30*time.Second, "node is registered", func() error {
		if err := kubelet.running(); err != nil {
			t.Fatal(err)
		}
		_, err := c.kubectl("get", "node", nodeName)
		return err
	})
	t.Cleanup(func() { c.deletePods(t) })
	return c
}

// startAPI starts etcd and the API server.
func (c *cluster) startAPI(t *testing.T) *process {
	t.Helper()
	const etcd = "http://127.0.0.1:2379"
	start(t, "etcd", c.command(filepath.Join(c.programs, "deb/usr/bin/etcd"), "--data-dir", c.makeDir(t, "etcd"),
		"--listen-client-urls", etcd, "--advertise-client-urls", etcd, "--listen-peer-urls", "http://127.0.0.1:2380"))

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := c.write(t, "service-accounts.key", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})))
	tokens := c.write(t, "tokens.csv", "admin,admin,1,system:masters\nkubelet,system:node:"+nodeName+",2,system:nodes\n")
	return start(t, "kube-apiserver", c.command(filepath.Join(c.programs, "kube-apiserver"), "--etcd-servers", etcd,
		"--secure-port", "443", "--advertise-address", nodeIP, "--service-cluster-ip-range", serviceIP+"/24",
		"--cert-dir", c.makeDir(t, "certificates"), "--token-auth-file", tokens, "--authorization-mode", "Node,RBAC",
		"--kubelet-preferred-address-types", "InternalIP",
		"--service-account-issuer", "https://kubernetes.default.svc.cluster.local",
		"--service-account-signing-key-file", keyFile, "--service-account-key-file", keyFile))
}

// startContainerd starts containerd, where the whole world expects its socket, and gives it the images.
func (c *cluster) startContainerd(t *testing.T, collector string) {
	t.Helper()
	cniConf := c.makeDir(t, "cni")
	c.write(t, "cni/10-k8s.conf", testdata(t, "cni.json"))
	config := strings.NewReplacer("CNI_BIN", filepath.Join(c.programs, "deb/usr/lib/cni"), "CNI_CONF", cniConf).
		Replace(testdata(t, "containerd.toml"))
	daemon := start(t, "containerd", c.command("containerd", "--config", c.write(t, "containerd.toml", config)))
	eventually(t, 20*time.Second, "containerd answers", func() error {
		if err := daemon.running(); err != nil {
			t.Fatal(err)
		}
		_, err := output(c.command("ctr", "version"))
		return err
	})
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []image{
		{name: imagePause, program: busybox, path: "bin/busybox", command: []string{"/bin/busybox", "sleep", "86400"}},
		{name: imageApp, program: busybox, path: "bin/sh", command: []string{"/bin/sh"}},
		{name: imageCollector, program: collector, path: "otelcol-custom", command: []string{"/otelcol-custom"}},
	} {
		file := filepath.Join(c.dir, "image.tar")
		if err := i.write(file); err != nil {
			t.Fatal(err)
		}
		if _, err := output(c.command("ctr", "-n", "k8s.io", "images", "import", file)); err != nil {
			t.Fatal(err)
		}
	}
}

// writeKubeconfig writes the kubeconfig of the owner of a token.
func (c *cluster) writeKubeconfig(t *testing.T, name, token string) string {
	t.Helper()
	ca := filepath.Join(c.dir, "certificates/apiserver.crt") // the API server makes it
	config := object{
		"apiVersion": "v1", "kind": "Config", "current-context": "x",
		"contexts": []object{{"name": "x", "context": object{"cluster": "x", "user": "x"}}},
		"clusters": []object{{"name": "x", "cluster": object{"server": "https://" + serviceIP, "certificate-authority": ca}}},
		"users":    []object{{"name": "x", "user": object{"token": token}}},
	}
	b, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return c.write(t, name+".kubeconfig", string(b))
}

// write writes a file in the node's directory and returns its path.
func (c *cluster) write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(c.dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// kubectl runs kubectl as the admin and returns what it printed.
func (c *cluster) kubectl(args ...string) (string, error) { return c.kubectlWith("", args...) }

func (c *cluster) kubectlWith(stdin string, args ...string) (string, error) {
	cmd := c.command(filepath.Join(c.programs, "kubectl"), append([]string{"--kubeconfig", c.admin,
		"--cache-dir", filepath.Join(c.dir, "kubectl"), "--request-timeout", "10s"}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	return output(cmd)
}

// create makes objects and decodes what the API server made of them into made.
func (c *cluster) create(t *testing.T, manifest string, made any) {
	t.Helper()
	out, err := c.kubectlWith(manifest, "create", "--validate=strict", "-o", "json", "-f", "-")
	if err == nil && made != nil {
		err = json.Unmarshal([]byte(out), made)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// get decodes the answer of kubectl get into the value.
func (c *cluster) get(value any, args ...string) error {
	out, err := c.kubectl(append([]string{"get", "-o", "json"}, args...)...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), value)
}

// deletePods lets the kubelet end all pods, as long as it lives.
func (c *cluster) deletePods(t *testing.T) {
	t.Helper()
	if _, err := c.kubectl("delete", "pods", "--all", "--all-namespaces", "--grace-period=1", "--wait=false"); err != nil {
		t.Error(err)
		return
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		out, err := c.kubectl("get", "pods", "--all-namespaces", "-o", "name")
		if err == nil && out != "" {
			err = fmt.Errorf("pods do not end: %s", strings.Fields(out))
		}
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Error(err)
			return
		}
	}
}

func testdata(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var errNotYet = errors.New("not yet")
