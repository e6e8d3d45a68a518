// The editor is closed by the proxy in HA mode; whoever reaches a container past it needs a password all the same: see adminAuth.
module.exports = {
    flowFile: "flows.json",
    credentialSecret: false,
    httpAdminRoot: "/admin", // with gate.admin_root: /admin in haproxy-py.yaml: everything of the admin side is behind one prefix
    uiPort: process.env.PORT || 1880,
    runtimeState: { enabled: false, ui: false },
    diagnostics: { enabled: false, ui: false },
    editorTheme: { tours: false },
    logging: { console: { level: "info", metrics: false, audit: false } },
};
