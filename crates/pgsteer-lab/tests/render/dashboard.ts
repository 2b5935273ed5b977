// The dashboard behind the last line, held against Grafana's own types. They have a few words as enums,
// for which a plain string will do, if it is one of them.
import type { Dashboard } from "@grafana/schema";

type Plain<T> = T extends (infer Each)[]
  ? Plain<Each>[]
  : T extends string
    ? string extends T ? string : `${T}`
    : T extends object
      ? { [Key in keyof T]: Plain<T[Key]> }
      : T;

export const dashboard: Plain<Dashboard> =
