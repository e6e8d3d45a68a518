// The control plane of Kubernetes as one program, for tests: `kube etcd …`, `kube apiserver …`, `kube controllers …`,
// `kube scheduler …`, and its client, `kube kubectl …`. Each takes the options of the program that it is.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: kube etcd|apiserver|controllers|scheduler|kubectl OPTIONS")
		os.Exit(2)
	}
	part := os.Args[1]
	os.Args = os.Args[1:]
	commands := map[string]func() *cobra.Command{
		"apiserver":   apiserver.NewAPIServerCommand,
		"controllers": controllers.NewControllerManagerCommand,
		"kubectl":     kubectl.NewDefaultKubectlCommand,
		"scheduler":   func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	}
	if part == "etcd" {
		etcdmain.Main(os.Args)
	} else if command, known := commands[part]; known {
		os.Exit(cli.Run(command()))
	} else {
		fmt.Fprintln(os.Stderr, "unknown part:", part)
		os.Exit(2)
	}
}
