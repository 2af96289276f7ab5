// Has a pool of postgres.js 3.4.9 use the connection again that was used last. By itself the driver takes idle connections in turn: then each statement
// runs in the session that was idle for longest, whose caches in the server are cold, and each session of the pool has to plan it.
import type postgres from "postgres"

/** The driver's queue of the connections that are in one state. */
interface Connections {
  readonly length: number
  push: (connection: unknown) => unknown
  shift: () => unknown
  remove: (connection: unknown) => unknown
}
/** The part of a connection of the driver that is used here: the queue that it is in. */
interface Connection {
  readonly queue: Connections
}

/**
 * The driver's `max_pipeline` that lets a connection have one statement at a time. Otherwise the driver sends further statements behind it, and
 * mixes up their answers when it sends the first one again, because a table changed that it reads (`cached plan must not change result type`),
 * or when a value of one cannot be written out: statements then get the rows of others, fail with their errors, or are never answered.
 *
 * It is an object, which the driver compares as the number that it stands for: the driver shows a connection only to a statement that others might follow.
 */
export class PipelineLimit {
  /** Whether a statement of `reuseLast` is sent now. */
  shows = false
  valueOf(): number {
    return this.shows ? 1 : 0
  }
}

/** Turns a queue into a stack: `shift` takes the connection that was added last. */
const stack = (queue: Connections): void => {
  const members: Array<unknown> = []
  while (queue.length > 0) members.push(queue.shift())
  Object.defineProperties(queue, {
    length: { get: () => members.length },
    push: { value: (connection: unknown) => (members.push(connection), connection) },
    shift: { value: () => members.pop() },
    remove: {
      value: (connection: unknown) => {
        const at = members.indexOf(connection)
        return at === -1 ? null : members.splice(at, 1)[0]
      }
    }
  })
}

/** Has a pool that nothing else uses yet take the connection that was used last. Connects, and rejects with the driver's error if that fails. */
export const reuseLast = async (sql: postgres.Sql, limit: PipelineLimit): Promise<void> => {
  let connection: Connection | undefined
  // the driver's option of this name, which its types lack, is how its `begin` learns the connection; false: no statement may follow
  const onexecute = (used: Connection) => {
    connection = used
    return false
  }
  limit.shows = true
  try {
    await sql.unsafe("", [], { onexecute } as postgres.UnsafeQueryOptions)
  } finally {
    limit.shows = false
  }
  // it is idle now, so the queue is that of idle connections
  if (connection?.queue.length === 1) stack(connection.queue)
}
