// What keeps a gate between two builds from being opened or closed. Pure: no I/O.

/** What keeps a gate from being opened or closed: it may read the database as it was before the last switch, or it holds a view. */
export interface GateHolder {
  readonly kind: "session" | "prepared transaction" | "standby"
  /** The process id of a session; null for others. */
  readonly pid: number | null
  /** The database role; null if it is not known. */
  readonly user: string | null
  /** The name of the application, the prepared transaction, or the replication slot. Null if this role may not see it. */
  readonly name: string | null
  /** For how long its transaction runs, in milliseconds. Null if this role may not see it. */
  readonly sinceMs: number | null
}
/** What became of a gate. */
export interface GateState {
  /** Whether the views show the live build alone. */
  readonly isClosed: boolean
  /** Why not: who may see the build from before the switch, or uses the views. Empty also if another process promotes or closes. */
  readonly holders: ReadonlyArray<GateHolder>
}

/** A gate that is open. */
export interface OpenGate extends GateState {
  readonly projection: string
  /** Why the views cannot show the live build alone, until a person removes the cause; undefined if nothing but holders is in the way. */
  readonly refusal?: string | undefined
}
/** Holders as a text: `session 4711 of reader (psql) for 12 s`. */
export const holdersText = (holders: ReadonlyArray<GateHolder>): string =>
  holders.length === 0
    ? "other sessions"
    : holders
        .map(({ kind, name, pid, sinceMs, user }) => {
          const who = `${kind}${pid === null ? "" : ` ${pid}`}${user === null ? "" : ` of ${user}`}`
          const since = sinceMs === null ? "" : ` for ${Math.max(0, Math.round(sinceMs / 1000))} s`
          return `${who}${name === null || name === "" ? "" : ` (${name})`}${since}`
        })
        .join(", ")
