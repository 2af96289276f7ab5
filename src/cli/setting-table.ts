// Every setting of Millrace: its variable, its key in the file of settings, its type, what holds without it, and what it means. Pure.

/** What values a setting has in the file. In a variable everything is text. */
export type SettingType =
  | "text"
  | "url"
  /** A file; in the file of settings relative to that file. */
  | "path"
  | "integer"
  | "boolean"
  /** Such as `2 minutes`. */
  | "duration"
  /** An array of texts; in a variable separated by commas. */
  | "list"
  /** An array of objects; in a variable as JSON. */
  | "objects"
  | { readonly oneOf: ReadonlyArray<string> }

/** A part of the page of the configuration. */
export type SettingSection = "Database" | "HTTP" | "Clients" | "Kafka" | "Pulsar" | "Others"

/** A setting. */
export interface SettingEntry {
  readonly section: SettingSection
  /** The environment variable. */
  readonly variable: string
  /** Where it is in the file: names that are separated by dots. */
  readonly key: string
  readonly type: SettingType
  /** What holds where it is not set, as the page says it; undefined: nothing. */
  readonly default?: string
  /** `whole`: the value is a secret; `password`: a URL that may have one. Both may be in a file of their own. */
  readonly secret?: "whole" | "password"
  /** Whether an empty value means something else than no value. */
  readonly isEmptyMeant?: boolean
  /** The option of commands that wins over it. */
  readonly option?: string
  /** What it means, in Markdown. */
  readonly text: string
}

const one = (
  section: SettingSection,
  variable: string,
  key: string,
  type: SettingType,
  text: string,
  more: Partial<Pick<SettingEntry, "default" | "secret" | "isEmptyMeant" | "option">> = {}
): SettingEntry => ({ section, variable: `MILLRACE_${variable}`, key, type, text, ...more })

const perScope = (scope: string, what: string) =>
  one(
    "HTTP",
    `HTTP_RATE_LIMIT_${scope.toUpperCase()}`,
    `http.rateLimit.${scope}`,
    "text",
    `how many requests that ${what} one client may send, such as \`100/second\` or \`6000/minute\` ([rate limits](../guide/access.md#rate-limits))`,
    { default: "no limit" }
  )

/** Every setting, in the order of the page. */
export const settingTable: ReadonlyArray<SettingEntry> = [
  one(
    "Database",
    "DATABASE_URL",
    "database.url",
    "url",
    "PostgreSQL 15 or newer, `postgres://user:password@host/database` ([PostgreSQL](../operations/postgresql.md))",
    { default: "an embedded PostgreSQL", secret: "password" }
  ),
  one(
    "Database",
    "READER_URL",
    "database.readerUrl",
    "url",
    "the same server as a role that only reads, for `millrace sql` and [queries over HTTP](../guide/querying-over-http.md). The embedded database has one of its own",
    { default: "the application's role", secret: "password" }
  ),
  one(
    "Database",
    "DATA",
    "database.data",
    "path",
    "the state directory of the embedded PostgreSQL; the option `--data` wins",
    { default: ".millrace", option: "--data" }
  ),
  one("HTTP", "HTTP_HOST", "http.host", "text", "the address that the server listens on; the option `--host` wins", {
    default: "127.0.0.1",
    option: "--host"
  }),
  one("HTTP", "HTTP_PORT", "http.port", "integer", "the port of `dev` and `start`; the option `--port` wins", {
    default: "7070; a free one for a process without the roles gateway and api",
    option: "--port"
  }),
  one(
    "HTTP",
    "HTTP_HOSTS",
    "http.hosts",
    "list",
    "names, separated by commas, that a `Host` header may have beside those of this machine: those of a reverse proxy on it",
    { default: "none" }
  ),
  one(
    "HTTP",
    "HTTP_AUTH",
    "http.auth",
    { oneOf: ["required", "optional"] },
    "`required`: each request needs a credential; `optional`: none is needed, and one that is sent counts",
    { default: "required where others than this machine reach the server" }
  ),
  one(
    "HTTP",
    "HTTP_TLS_CERT",
    "http.tls.cert",
    "path",
    "PEM file of the server's certificate, with those between it and the authority: the server speaks TLS ([TLS and proxies](../operations/tls.md))",
    { default: "plain HTTP" }
  ),
  one("HTTP", "HTTP_TLS_KEY", "http.tls.key", "path", "PEM file of its key"),
  one(
    "HTTP",
    "HTTP_TLS_CA",
    "http.tls.ca",
    "path",
    "PEM file of the authorities that sign certificates of clients: clients need one ([client certificates](../operations/tls.md#client-certificates))",
    { default: "none" }
  ),
  one(
    "HTTP",
    "HTTP_TLS_CLIENTS",
    "http.tls.clients",
    { oneOf: ["required", "optional"] },
    "`required`: no connection without a certificate of these authorities; `optional`: one that is sent is checked, and counts",
    { default: "required" }
  ),
  one(
    "HTTP",
    "HTTP_TLS_PRINCIPALS",
    "http.tls.principals",
    "objects",
    "what certificates of clients allow: an array of `{cn or san, scopes, tenant, name}`; a variable has it as JSON",
    { default: "none" }
  ),
  one(
    "HTTP",
    "HTTP_TRUSTED_PROXIES",
    "http.trustedProxies",
    "list",
    "addresses and networks, such as `10.0.0.0/8`, of proxies whose headers `X-Forwarded-For`, `-Host` and `-Proto` count",
    { default: "none" }
  ),
  one(
    "HTTP",
    "HTTP_CORS",
    "http.cors",
    "list",
    "origins, such as `https://console.example.com`, whose pages may call the server from a browser",
    { default: "none" }
  ),
  perScope("ingest", "send events and commands"),
  perScope("read", "read"),
  perScope("operate", "operate the system"),
  one(
    "HTTP",
    "JWT_KEYS",
    "jwt.keys",
    "text",
    "the URL of the issuer's JWK set, or a file with one: tokens of this issuer are accepted",
    { default: "no tokens" }
  ),
  one("HTTP", "JWT_ISSUER", "jwt.issuer", "text", "what the claim `iss` must be; needed with `MILLRACE_JWT_KEYS`"),
  one(
    "HTTP",
    "JWT_AUDIENCE",
    "jwt.audience",
    "text",
    "what the claim `aud` must have; needed with `MILLRACE_JWT_KEYS`"
  ),
  one("HTTP", "JWT_ALGORITHMS", "jwt.algorithms", "list", "algorithms that are allowed, separated by commas", {
    default: "RS256,PS256,ES256,EdDSA"
  }),
  one(
    "HTTP",
    "JWT_TENANT_CLAIM",
    "jwt.tenantClaim",
    "text",
    "the claim with the tenant, which every token needs; empty: tokens are of all tenants",
    { default: "tenant", isEmptyMeant: true }
  ),
  one(
    "HTTP",
    "JWT_SCOPE_CLAIM",
    "jwt.scopeClaim",
    "text",
    "the claim with the scopes: a text with spaces, or an array",
    { default: "scope" }
  ),
  one(
    "HTTP",
    "JWT_SCOPE_PREFIX",
    "jwt.scopePrefix",
    "text",
    "what scopes begin with in tokens, as in `millrace:read`",
    { default: "millrace:", isEmptyMeant: true }
  ),
  one(
    "Clients",
    "URL",
    "client.url",
    "url",
    "the gateway that `millrace ingest` sends to, as `http://127.0.0.1:7070`",
    {
      default: "straight to the log"
    }
  ),
  one(
    "Clients",
    "API_KEY",
    "client.apiKey",
    "text",
    "the key that `millrace ingest` and `millrace tail --url` send to a server",
    {
      default: "none",
      secret: "whole"
    }
  ),
  one(
    "Clients",
    "CLIENT_TLS_CA",
    "client.tls.ca",
    "path",
    "PEM file of the authority that signed the gateway's certificate",
    { default: "those of the runtime, and of NODE_EXTRA_CA_CERTS" }
  ),
  one("Clients", "CLIENT_TLS_CERT", "client.tls.cert", "path", "PEM file of the certificate that commands present", {
    default: "none"
  }),
  one("Clients", "CLIENT_TLS_KEY", "client.tls.key", "path", "PEM file of its key", { default: "none" }),
  one("Kafka", "KAFKA_BROKERS", "kafka.brokers", "list", "`host:port` of some brokers, separated by commas", {
    default: "the log is in the database"
  }),
  one("Kafka", "KAFKA_USERNAME", "kafka.username", "text", "SASL: the user", { default: "no SASL" }),
  one("Kafka", "KAFKA_PASSWORD", "kafka.password", "text", "SASL: the password", { secret: "whole" }),
  one(
    "Kafka",
    "KAFKA_MECHANISM",
    "kafka.mechanism",
    { oneOf: ["plain", "scram-sha-256", "scram-sha-512"] },
    "`plain`, `scram-sha-256` or `scram-sha-512`",
    { default: "scram-sha-512" }
  ),
  one(
    "Kafka",
    "KAFKA_TLS",
    "kafka.tls.enabled",
    "boolean",
    "`true`: TLS with the certificate authorities of the runtime; `false`: none",
    { default: "true if a certificate is set" }
  ),
  one("Kafka", "KAFKA_TLS_CA", "kafka.tls.ca", "path", "PEM file of the certificate authority", {
    default: "those of the runtime"
  }),
  one("Kafka", "KAFKA_TLS_CERT", "kafka.tls.cert", "path", "PEM file of the client's certificate", { default: "none" }),
  one("Kafka", "KAFKA_TLS_KEY", "kafka.tls.key", "path", "PEM file of its key", { default: "none" }),
  one(
    "Kafka",
    "KAFKA_COMPRESSION",
    "kafka.compression",
    { oneOf: ["none", "gzip", "snappy", "lz4", "zstd"] },
    "`none`, `gzip`, `snappy`, `lz4` or `zstd`, for what is produced",
    { default: "zstd for what the relay publishes, else none" }
  ),
  one("Kafka", "KAFKA_REPLICATION", "kafka.replication", "integer", "replication factor of new topics", {
    default: "the broker's"
  }),
  one("Kafka", "KAFKA_MIN_ISR", "kafka.minIsr", "integer", "`min.insync.replicas` of new topics", {
    default: "the broker's"
  }),
  one(
    "Kafka",
    "KAFKA_SESSION_MS",
    "kafka.sessionMs",
    "integer",
    "how long a process may be silent before its partitions move to another, in milliseconds",
    { default: "10000" }
  ),
  one(
    "Kafka",
    "KAFKA_REQUEST_MS",
    "kafka.requestMs",
    "integer",
    "how long a request may take before the connection is replaced, in milliseconds",
    { default: "20000" }
  ),
  one(
    "Kafka",
    "KAFKA_FETCH_BYTES",
    "kafka.fetchBytes",
    "integer",
    "bytes of fetched records that a process holds at most",
    { default: "100663296" }
  ),
  one(
    "Pulsar",
    "PULSAR_URL",
    "pulsar.url",
    "url",
    "`pulsar://` or `pulsar+ssl://` (native client), `ws://` or `wss://` (WebSocket)",
    { default: "derived topics stay in the log" }
  ),
  one("Pulsar", "PULSAR_ADMIN_URL", "pulsar.adminUrl", "url", "the admin interface, `http://` or `https://`", {
    default: "the host of a WebSocket URL"
  }),
  one("Pulsar", "PULSAR_TOKEN", "pulsar.token", "text", "JSON web token to sign in with", {
    default: "none",
    secret: "whole"
  }),
  one("Pulsar", "PULSAR_TLS_CA", "pulsar.tls.ca", "path", "PEM file of the certificate authority", {
    default: "those of the runtime"
  }),
  one("Pulsar", "PULSAR_TLS_CERT", "pulsar.tls.cert", "path", "PEM file of the client's certificate", {
    default: "none"
  }),
  one("Pulsar", "PULSAR_TLS_KEY", "pulsar.tls.key", "path", "PEM file of its key", { default: "none" }),
  one("Pulsar", "PULSAR_TENANT", "pulsar.tenant", "text", "of topics that are named without one", {
    default: "public"
  }),
  one("Pulsar", "PULSAR_NAMESPACE", "pulsar.namespace", "text", "of topics that are named without one", {
    default: "alerts"
  }),
  one("Pulsar", "PULSAR_CLIENT", "pulsar.client", "text", "name or path of the package `pulsar-client`", {
    default: "pulsar-client"
  }),
  one(
    "Others",
    "KEY_ENCRYPTION_KEY",
    "keyEncryptionKey",
    "text",
    "32 bytes (64 hex digits, or base64) that encrypt the stored keys of [personal data](../guide/erasure.md)",
    { default: "keys are stored as they are", secret: "whole" }
  ),
  one(
    "Others",
    "HEALTH_MAX_AGE",
    "health.maxAge",
    "duration",
    "how long a record or a message may wait before the system is not healthy, such as `2 minutes`",
    { default: "60 seconds" }
  ),
  one("Others", "DEBUG", "debug", "boolean", "set to anything: a command that fails also prints the error's stack", {
    default: "not set"
  })
]

/** The variable that names the file of settings, which cannot be in it. */
export const settingsVariable = "MILLRACE_SETTINGS"
/** The variable with the path of a file that has the value of a secret, as orchestrators mount them. */
export const fileVariableOf = (variable: string): string => `${variable}_FILE`
