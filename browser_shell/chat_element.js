export class ChatElement {}
