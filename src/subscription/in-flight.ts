// The messages that one `Subscription.run` has received and not finished: by key where order matters, each by itself otherwise.
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type { Message } from "./fanout.ts"

/** Messages of one key, in order; or one message, if order does not matter. */
export interface MessageChain {
  readonly messages: Array<Message>
  /** The first message failed and is expected again by this time (`performance.now()`), with the others waiting for it. Undefined: it did not. */
  blockedUntil: number | undefined
  /** The first message was redelivered before its failure was dealt with. */
  again: Message | undefined
  /** Whether its messages are being returned to the broker. Later ones of the key join it meanwhile, so that they do not overtake these. */
  isReturning: boolean
}
/** A message's position as text, `<partition>:<position>`. */
export const positionText = ({ partition, position }: Message) => `${partition}:${position}`

/** All messages in flight: chains that wait for a worker, and chains whose failed first message will be redelivered. */
export class InFlight {
  /** Open while a chain waits for a worker. */
  readonly work = Latch.makeUnsafe(false)
  /** Opened whenever a message is finished. */
  readonly freed = Latch.makeUnsafe(false)
  /** Chains that wait for a worker. */
  readonly waiting: Array<MessageChain> = []
  /** Messages in flight. */
  count = 0
  private readonly chains = new Map<string, MessageChain>()
  private readonly keyed: boolean

  constructor(keyed: boolean) {
    this.keyed = keyed
  }
  private keyOf(message: Message): string {
    return this.keyed ? message.key : positionText(message)
  }
  /**
   * Takes received messages; a redelivered one takes the place of its former delivery. No worker starts before all are added: one that fails
   * at once would be finished before those that have to wait for it are known.
   */
  add(messages: ReadonlyArray<Message>): void {
    for (const message of messages) this.addOne(message)
    if (this.waiting.length > 0) this.work.openUnsafe()
  }
  private addOne(message: Message): void {
    const chain = this.chains.get(this.keyOf(message))
    const first = chain?.messages[0]
    if (chain === undefined || first === undefined) {
      this.count += 1
      const added: MessageChain = { messages: [message], blockedUntil: undefined, again: undefined, isReturning: false }
      this.chains.set(this.keyOf(message), added)
      this.start(added)
      return
    }
    const at = chain.messages.findIndex((other) => positionText(other) === positionText(message))
    if (at > 0 || (at === 0 && chain.isReturning)) chain.messages[at] = message
    else if (at === 0 && chain.blockedUntil === undefined) chain.again = message
    else if (at === 0) {
      chain.messages[0] = message
      this.start(chain)
    } else {
      this.count += 1
      chain.messages.push(message)
    }
  }
  private start(chain: MessageChain): void {
    chain.blockedUntil = undefined
    this.waiting.push(chain)
  }
  /** Removes the first message of a chain, which is handled or given up. */
  finish(chain: MessageChain): void {
    const message = chain.messages.shift()!
    this.count -= 1
    if (chain.messages.length === 0) this.chains.delete(this.keyOf(message))
    this.freed.openUnsafe()
  }
  /** A chain whose first message was not redelivered in time: the broker gave it to another consumer. It has to be returned. */
  takeLost(now: number): MessageChain | undefined {
    for (const chain of this.chains.values()) {
      if (chain.blockedUntil === undefined || chain.blockedUntil >= now) continue
      chain.blockedUntil = undefined
      chain.isReturning = true
      return chain
    }
    return undefined
  }
  /**
   * Removes messages of a chain that were returned. If all of them were redelivered meanwhile, they are handled with those that follow them.
   * Returns false if later ones arrived that must be returned, too, because they come after messages that are still to be redelivered.
   */
  removeReturned(chain: MessageChain, returned: ReadonlyArray<Message>): boolean {
    const left = chain.messages.filter((message) => !returned.includes(message))
    if (left.length === chain.messages.length) {
      chain.isReturning = false
      this.start(chain)
      this.work.openUnsafe()
      return true
    }
    this.count -= chain.messages.length - left.length
    this.freed.openUnsafe()
    if (left.length === 0) this.chains.delete(this.keyOf(chain.messages[0]!))
    chain.messages.splice(0, Infinity, ...left)
    return left.length === 0
  }
}

/** Returns the messages of lost chains to the broker by `give`. None of their keys is handled before its chain was returned. */
export const returnLost = Effect.fnUntraced(function* <E>(
  inFlight: InFlight,
  give: (messages: ReadonlyArray<Message>) => Effect.Effect<void, E>
) {
  for (let chain = inFlight.takeLost(performance.now()); chain !== undefined;) {
    const returned = [...chain.messages]
    yield* give(returned)
    if (inFlight.removeReturned(chain, returned)) chain = inFlight.takeLost(performance.now())
  }
})

/**
 * Handles the messages of a chain one after another, until none is left or one failed that the others have to wait for. `handle` returns
 * whether a message is finished; a failed one is expected again within `patienceMs`.
 */
export const processChain = <E, R>(
  inFlight: InFlight,
  handle: (message: Message) => Effect.Effect<boolean, E, R>,
  patienceMs: number
) =>
  Effect.fnUntraced(function* (chain: MessageChain) {
    while (chain.messages.length > 0) {
      const isFinished = yield* handle(chain.messages[0]!)
      const { again } = chain
      chain.again = undefined
      if (!isFinished && again !== undefined) {
        chain.messages[0] = again
        continue
      }
      if (!isFinished && chain.messages.length > 1) {
        // it will be redelivered to this consumer, which holds others of its key
        chain.blockedUntil = performance.now() + patienceMs
        return
      }
      inFlight.finish(chain)
    }
  })
