"""The data path between real sockets: raw clients on one side, scripted replicas on the other."""
