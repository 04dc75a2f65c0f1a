// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"errors"
	"fmt"
	"slices"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// The namespaces of containerd that clients take for themselves.
const (
	namespaceCRI    = "k8s.io"
	namespaceDocker = "moby"
	namespaceTalos  = "system"
)

// maxNamespaces bounds how many namespaces are searched for one container.
const maxNamespaces = 256

// containerd asks a containerd over its own interface: about containers of ctr, nerdctl and of whatever else is built on
// it, and about those of Kubernetes where CRI is off.
type containerd struct {
	socket     string
	conn       *grpc.ClientConn
	containers containersapi.ContainersClient
	namespaces namespacesapi.NamespacesClient
	events     eventsapi.EventsClient
}

// newContainerd connects to the containerd that listens on a unix socket. errors.ErrUnsupported means that somebody else
// listens there.
func newContainerd(ctx context.Context, socket string) (Runtime, error) {
	conn, err := dialGRPC(socket)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", socket, err)
	}
	ctx, cancel := context.WithTimeout(ctx, Deadline)
	defer cancel()
	if _, err = versionapi.NewVersionClient(conn).Version(ctx, &emptypb.Empty{}); err != nil {
		_ = conn.Close() // it was of no use
		return nil, fmt.Errorf("%s: %w", socket, unsupported(err, "containerd v1"))
	}
	return &containerd{
		socket:     socket,
		conn:       conn,
		containers: containersapi.NewContainersClient(conn),
		namespaces: namespacesapi.NewNamespacesClient(conn),
		events:     eventsapi.NewEventsClient(conn),
	}, nil
}

// Close ends the connection.
func (c *containerd) Close() error { return c.conn.Close() }

// Follow tells of containers whose labels have changed: nerdctl keeps the name in one. It returns an error as soon as the
// connection breaks, since what is renamed meanwhile would not be told.
func (c *containerd) Follow(ctx context.Context, changed func(id string)) error {
	err := c.follow(ctx, changed)
	if status.Code(err) == codes.Unimplemented {
		err = watchConnection(ctx, c.conn)
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: events: %w", c.socket, err)
	}
	return nil
}

func (c *containerd) follow(ctx context.Context, changed func(id string)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	request := &eventsapi.SubscribeRequest{Filters: []string{`topic=="/containers/update"`}}
	stream, err := c.events.Subscribe(ctx, request)
	if err != nil {
		return err
	}
	for {
		event, err := stream.Recv()
		if err != nil {
			return err
		}
		// containerd.events.ContainerUpdate, whose package needs more modules, begins with the id as this message does.
		var update containersapi.GetContainerRequest
		if err := proto.Unmarshal(event.GetEvent().GetValue(), &update); err == nil && update.GetID() != "" {
			changed(update.GetID())
		}
	}
}

// Inspect tells of a container in the namespace that its cgroup names, otherwise of the first with this id in any
// namespace. While the daemon is away it fails; it works again when the daemon is back.
func (c *containerd) Inspect(ctx context.Context, ref cgroups.Ref) (Info, error) {
	if !askable(ref.ID) {
		return Info{}, ErrNotFound
	}
	ctx, cancel := context.WithTimeout(ctx, Deadline)
	defer cancel()
	container, namespace, err := c.find(ctx, ref)
	if err != nil {
		return Info{}, fmt.Errorf("%s: %w", c.socket, err)
	}
	return containerdInfo(container, namespace), nil
}

// find looks for a container where it is likely to be, then in all other namespaces.
func (c *containerd) find(ctx context.Context, ref cgroups.Ref) (*containersapi.Container, string, error) {
	likely, certain := likelyNamespace(ref)
	if likely != "" {
		container, err := c.get(ctx, likely, ref.ID)
		if certain || !errors.Is(err, ErrNotFound) {
			return container, likely, err
		}
	}
	names, err := c.listNamespaces(ctx)
	if err != nil {
		return nil, "", err
	}
	for _, name := range names {
		if name == likely {
			continue
		}
		if container, err := c.get(ctx, name, ref.ID); !errors.Is(err, ErrNotFound) {
			return container, name, err
		}
	}
	return nil, "", ErrNotFound
}

// likelyNamespace tells where a container is to be looked for first, and whether it can be nowhere else. An id may be
// a name, which other namespaces have as well.
func likelyNamespace(ref cgroups.Ref) (namespace string, certain bool) {
	switch ref.Kind {
	case cgroups.Containerd:
		return ref.Namespace, ref.Namespace != ""
	case cgroups.Talos: // whatever the parent of its cgroup
		return namespaceTalos, false
	case cgroups.Kubernetes:
		return namespaceCRI, false
	case cgroups.Docker:
		return namespaceDocker, false
	}
	return "", false
}

// listNamespaces returns at most maxNamespaces, in order.
func (c *containerd) listNamespaces(ctx context.Context) ([]string, error) {
	answer, err := c.namespaces.List(ctx, &namespacesapi.ListNamespacesRequest{})
	if err != nil {
		return nil, fmt.Errorf("namespaces: %w", err)
	}
	var names []string
	for _, n := range answer.GetNamespaces() {
		names = append(names, n.GetName())
	}
	slices.Sort(names)
	return names[:min(len(names), maxNamespaces)], nil
}

// get asks one namespace for a container.
func (c *containerd) get(ctx context.Context, namespace, id string) (*containersapi.Container, error) {
	if !isHeader(namespace) {
		return nil, ErrNotFound
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace)
	answer, err := c.containers.Get(ctx, &containersapi.GetContainerRequest{ID: id})
	switch {
	case err == nil && answer.GetContainer().GetID() == id:
		return answer.GetContainer(), nil
	case err == nil, status.Code(err) == codes.NotFound:
		return nil, ErrNotFound
	}
	return nil, fmt.Errorf("container %s in %s: %w", id, namespace, err)
}

// isHeader tells whether text can be the value of a header; a namespace always can, a directory need not.
func isHeader(text string) bool {
	for i := range len(text) {
		if text[i] <= ' ' || text[i] > '~' {
			return false
		}
	}
	return text != ""
}
