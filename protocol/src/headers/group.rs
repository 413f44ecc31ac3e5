//! Groups as the tools manage them: codes 201, 207, 343, 345, 352, 353.

header! {
    /// `GET_ALL_SUBSCRIPTIONGROUP_CONFIG` (201); without fields everything is wanted.
    AllGroupConfigRequest<'a> {
        /// Number of the first group of this page.
        group_seq: Option<i32> = "groupSeq",
        data_version: Option<&'a str> = "dataVersion",
        max_group_num: Option<i32> = "maxGroupNum",
    }
}

header! {
    /// The response to 201.
    AllGroupConfigResponse {
        total_group_num: Option<i32> = "totalGroupNum",
    }
}

header! {
    /// `DELETE_SUBSCRIPTIONGROUP` (207).
    DeleteGroupRequest<'a> {
        group_name: &'a str = "groupName",
        /// The group's offsets go too.
        clean_offset: Option<bool> = "cleanOffset",
    }
}

header! {
    /// `GET_SUBSCRIPTIONGROUP_CONFIG` (352) and `QUERY_TOPICS_BY_CONSUMER` (343).
    GroupRequest<'a> {
        group: &'a str = "group",
    }
}

header! {
    /// `QUERY_SUBSCRIPTION_BY_CONSUMER` (345) and `QUERY_CONSUME_TIME_SPAN` (303).
    GroupTopicRequest<'a> {
        group: &'a str = "group",
        topic: &'a str = "topic",
    }
}

header! {
    /// `UPDATE_AND_GET_GROUP_FORBIDDEN` (353).
    ForbiddenRequest<'a> {
        group: &'a str = "group",
        topic: &'a str = "topic",
        readable: Option<bool> = "readable",
    }
}
