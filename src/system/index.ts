// The public names of `millrace/system`, nothing else. Their types name those of Node, which a consumer need not list among its own.
/// <reference types="node" preserve="true" />
export { type Database, openDatabase } from "./database.ts"
export { InvalidEnvironment, TopicsNotReady } from "./errors.ts"
export { layer, type LayerOptions, once, type OnceOptions } from "./layer.ts"
export { type Observed, openObserved, readStatus } from "./observed.ts"
export { openDeadLetterTopics, openParkedSender } from "./open-dead-letters.ts"
export type { RelayTarget as Target } from "../relay/target.ts"
export type { Status } from "./status.ts"
export { type OpenOptions, openSystem, runProjections, runRelay, type System } from "./system.ts"
export { openTopics, specsOf } from "./topics.ts"
