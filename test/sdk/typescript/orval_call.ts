export const call = async <T>(path: string, options: RequestInit): Promise<T> => { throw new Error("x") }
